//! The program as a whole: what a user types, what they see, what is left when it is killed.

mod approve;
mod bad_input;
mod cancel;
mod chat;
mod example;
mod kill;
mod manifest;
mod mcp;
mod moor;
mod ordinary_user;
mod terminal;
mod wire;
