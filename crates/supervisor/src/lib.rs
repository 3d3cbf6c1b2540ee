//! The process inside a sandbox: runs commands, keeps deadlines, holds output, serves files.
