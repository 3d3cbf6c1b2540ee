//! The event decoder, and the fold of whatever it lets through: neither panics, and what was read is written back so
//! that it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooring_harness::State;
use mooring_journal::{Event, Record};

fuzz_target!(|lines: &str| {
    let records: Vec<Record> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for record in &records {
        // A number such as 1e999 has no JSON form to go back to.
        if let Ok(text) = serde_json::to_string(record) {
            let again: Record = serde_json::from_str(&text).expect("what was written is read");
            // An event that names a field twice is kept as one that nobody knows, and the second time it may be known.
            if !matches!(record.event, Event::Unknown(_)) {
                assert_eq!(serde_json::to_string(&again).expect("and written again"), text);
            }
        }
    }
    if let Ok(Some(state)) = State::fold(&records) {
        let _ = state.next();
    }
});
