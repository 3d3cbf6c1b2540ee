//! The commands, one file each.

pub(crate) mod approve;
pub(crate) mod budget;
pub(crate) mod cancel;
pub(crate) mod chat;
pub(crate) mod conversation;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod fork;
pub(crate) mod manifest;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod sandbox;
pub(crate) mod show;
pub(crate) mod transfer;
