//! One neutral model request, response and stream, and each wire protocol.
