//! Tests of the MCP client, against servers that other people wrote and one that misbehaves as they can.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod asks;
mod config;
mod death;
mod everything;
mod http;
mod offer;
mod processes;
mod python;
mod result;
mod start;
mod support;
