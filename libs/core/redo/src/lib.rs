#![forbid(unsafe_code)]
//! (contract pending)
