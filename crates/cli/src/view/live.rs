//! A run as it goes: the story for people with one line about what is going on now, JSON lines for pipes.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use mooring_harness::{Live, Observer};
use mooring_journal::{Event, Record};

use crate::view::story::{Stories, describe};
use crate::view::text::{duration, one_line};

/// Prints each event as a line of JSON.
#[derive(Debug)]
pub(crate) struct JsonLines;

impl Observer for JsonLines {
    fn recorded(&self, record: &Record) {
        // The run goes on when nobody reads; what it does is in the journal.
        crate::view::json_line(record).ok();
    }
}

/// Tells the story on a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Shown {
    stories: Stories,
    /// What is going on, since when.
    now: Option<(String, Instant)>,
    /// The last line of what streams in.
    stream: String,
    /// Whether the terminal's last line is the status line.
    drawn: bool,
}

impl Terminal {
    /// A view with a status line that is drawn anew four times a second, as long as the view lives.
    pub(crate) fn start(stories: Stories) -> std::sync::Arc<Self> {
        let shown = Shown { stories, now: None, stream: String::new(), drawn: false };
        let view = std::sync::Arc::new(Self { shown: Mutex::new(shown) });
        let weak = std::sync::Arc::downgrade(&view);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(std::time::Duration::from_millis(250));
            loop {
                ticks.tick().await;
                let Some(view) = weak.upgrade() else { return };
                view.with(|shown| shown.draw(None));
            }
        });
        view
    }

    fn with(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shown {
    /// Prints lines of the story, and the status line below them.
    fn draw(&mut self, text: Option<&str>) {
        let mut out = anstream::stdout().lock();
        let dim = anstyle::Style::new().dimmed();
        let mut frame = String::new();
        if self.drawn {
            frame += "\r\u{1b}[2K";
            self.drawn = false;
        }
        frame += text.unwrap_or_default();
        if let Some((what, since)) = &self.now {
            let took = since.elapsed().as_millis() as u64;
            let streamed =
                if self.stream.is_empty() { String::new() } else { format!(" · {}", self.stream) };
            frame +=
                &format!("{dim}… {}{dim:#}", one_line(&format!("{what} · {}{streamed}", duration(took)), 76));
            self.drawn = true;
        }
        // A terminal that has gone away does not end the run.
        out.write_all(frame.as_bytes()).ok();
        out.flush().ok();
    }

    fn stream(&mut self, text: &str) {
        self.stream += text;
        if let Some((_, last)) = self.stream.rsplit_once('\n') {
            self.stream = last.to_owned();
        }
        let surplus = self.stream.chars().count().saturating_sub(200);
        self.stream = self.stream.chars().skip(surplus).collect();
    }
}

impl Observer for Terminal {
    fn recorded(&self, record: &Record) {
        self.with(|shown| {
            let now = match &record.event {
                Event::SandboxRequested(_) => Some("starting the sandbox".to_owned()),
                Event::ModelRequested(request) => Some(format!("turn {} · asking the model", request.turn)),
                Event::CompactionRequested(_) => Some("shortening the conversation".to_owned()),
                Event::ToolRequested(request) => Some(format!(
                    "turn {} · {} {}",
                    request.turn,
                    request.tool,
                    describe(&request.tool, &request.arguments, &request.prepared)
                )),
                Event::SandboxReady(_)
                | Event::ModelCompleted(_)
                | Event::ModelFailed(_)
                | Event::Compacted(_)
                | Event::CompactionFailed(_)
                | Event::SandboxLost(_)
                | Event::RunFinished(_) => None,
                _ => shown.now.take().map(|(what, _)| what),
            };
            shown.now = now.map(|what| (what, Instant::now()));
            shown.stream.clear();
            let text = shown.stories.tell(record);
            shown.draw(Some(&text));
        });
    }

    fn live(&self, live: Live) {
        self.with(|shown| match live {
            Live::Text(text) | Live::Reasoning(text) | Live::ToolOutput { text, .. } => shown.stream(&text),
            Live::ToolCallStarted { tool } => shown.stream(&format!("\ncalls {tool}")),
            Live::Retrying { attempt, after, reason } => {
                let after = duration(after.as_millis() as u64);
                let text = format!("  try {attempt} in {after}: {}\n", one_line(&reason, 100));
                shown.stream.clear();
                shown.draw(Some(&text));
            }
            Live::Note(note) => shown.draw(Some(&format!("  {}\n", one_line(&note, 150)))),
        });
    }
}
