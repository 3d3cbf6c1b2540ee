//! Frames: what travels on the socket between harness and supervisor.
//!
//! `[u32 header length][u32 payload length][header: JSON][payload: bytes]`, lengths in little endian. Bulk data is
//! never JSON. Both lengths are bounded, so that neither side can make the other hold more than one frame.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest header, in bytes.
pub const MAX_HEADER: usize = 4 << 20;

/// The longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// The two lengths before each frame.
const PREFIX: usize = 8;

/// What a peer sent is not the protocol. The connection is of no use afterwards.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame larger than allowed.
    #[error("a frame of {header} and {payload} bytes is larger than allowed")]
    TooLarge {
        /// Length of the header.
        header: usize,
        /// Length of the payload.
        payload: usize,
    },
    /// The header is not the JSON that was expected.
    #[error("malformed frame header: {0}")]
    Header(#[from] serde_json::Error),
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<H> {
    /// What it says.
    pub header: H,
    /// The bytes that go with it.
    pub payload: Vec<u8>,
}

/// A frame as bytes: prefix and header in one, the payload apart, so that it need not be copied.
pub fn encode<H: Serialize>(header: &H, payload_len: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; PREFIX];
    serde_json::to_writer(&mut bytes, header)?;
    let header_len = bytes.len() - PREFIX;
    if header_len > MAX_HEADER || payload_len > MAX_PAYLOAD {
        return Err(FrameError::TooLarge { header: header_len, payload: payload_len });
    }
    bytes[..4].copy_from_slice(&(header_len as u32).to_le_bytes());
    bytes[4..PREFIX].copy_from_slice(&(payload_len as u32).to_le_bytes());
    Ok(bytes)
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start >= self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
            // A large frame must not keep its memory for ever.
            if self.bytes.capacity() > (1 << 20) && self.bytes.len() < (64 << 10) {
                self.bytes.shrink_to(64 << 10);
            }
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes came.
    pub fn next_frame<H: DeserializeOwned>(&mut self) -> Result<Option<Frame<H>>, FrameError> {
        let bytes = &self.bytes[self.start..];
        let Some((header, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let Some((payload, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let header = u32::from_le_bytes(*header) as usize;
        let payload = u32::from_le_bytes(*payload) as usize;
        if header > MAX_HEADER || payload > MAX_PAYLOAD {
            return Err(FrameError::TooLarge { header, payload });
        }
        let Some(body) = rest.get(..header + payload) else { return Ok(None) };
        let frame =
            Frame { header: serde_json::from_slice(&body[..header])?, payload: body[header..].to_vec() };
        self.start += PREFIX + header + payload;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::wire::{Call, Request};

    fn frames(decoder: &mut Decoder) -> Result<Vec<Frame<Value>>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn lengths_beyond_the_limits_are_refused_before_anything_is_waited_for() {
        for (header, payload) in
            [(MAX_HEADER as u32 + 1, 0), (0, MAX_PAYLOAD as u32 + 1), (u32::MAX, u32::MAX)]
        {
            let mut decoder = Decoder::default();
            decoder.push(&[header.to_le_bytes(), payload.to_le_bytes()].concat());
            assert!(matches!(frames(&mut decoder), Err(FrameError::TooLarge { .. })));
        }
        assert!(matches!(encode(&"x".repeat(MAX_HEADER), 0), Err(FrameError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives_however_it_is_cut(
            sent in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            cut in 1_usize..50,
        ) {
            let mut bytes = Vec::new();
            for (id, payload) in &sent {
                bytes.extend(encode(id, payload.len()).unwrap());
                bytes.extend(payload);
            }
            let mut decoder = Decoder::default();
            let mut received = Vec::new();
            for part in bytes.chunks(cut) {
                decoder.push(part);
                received.extend(frames(&mut decoder).unwrap());
            }
            let sent: Vec<_> =
                sent.into_iter().map(|(id, payload)| Frame { header: Value::from(id), payload }).collect();
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 1_usize..60) {
            let mut decoder = Decoder::default();
            for part in bytes.chunks(cut) {
                decoder.push(part);
                if decoder.next_frame::<Request>().is_err() {
                    break;
                }
            }
        }

        #[test]
        fn no_header_makes_it_panic(text in "\\{\"id\":[0-9]{1,3},\"call\":\\{\"op\":\"[a-z_]{0,12}\"[^\\x00]{0,40}") {
            let mut decoder = Decoder::default();
            let lengths = [(text.len() as u32).to_le_bytes(), 0_u32.to_le_bytes()].concat();
            decoder.push(&lengths);
            decoder.push(text.as_bytes());
            let _ = decoder.next_frame::<Request>();
        }
    }

    #[test]
    fn a_call_keeps_its_form_on_the_wire() {
        // Changing this text is a new generation of the protocol.
        let request = Request { id: 7, call: Call::Read { path: "a".into(), max_bytes: 9 } };
        let bytes = encode(&request, 0).unwrap();
        let expected = r#"{"id":7,"call":{"op":"read","path":"a","max_bytes":9}}"#;
        assert_eq!(std::str::from_utf8(&bytes[8..]).unwrap(), expected);
    }
}
