//! What people and pipes get to see.

pub(crate) mod checks;
pub(crate) mod live;
pub(crate) mod story;
pub(crate) mod text;

use std::io::{IsTerminal as _, Write as _};

use mooring_journal::Record;

/// Says on standard error what is wrong.
pub(crate) fn complain(message: &str) {
    let bold = anstyle::AnsiColor::Red.on_default().bold();
    // Nobody is left to tell when standard error is gone.
    writeln!(anstream::stderr(), "{bold}error{bold:#}: {}", text::safe(message)).ok();
}

/// Says something on standard error that is no error.
pub(crate) fn note(message: &str) {
    let dim = anstyle::Style::new().dimmed();
    writeln!(anstream::stderr(), "{dim}{}{dim:#}", text::safe(message)).ok();
}

/// Prints a line on standard output. A reader that has gone away is no error.
pub(crate) fn line(text: &str) -> std::io::Result<()> {
    match writeln!(anstream::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints an event as one line of JSON.
pub(crate) fn json_line(record: &Record) -> std::io::Result<()> {
    line(&serde_json::to_string(record)?)
}

/// Whether people read standard output.
pub(crate) fn people() -> bool {
    std::io::stdout().is_terminal()
}
