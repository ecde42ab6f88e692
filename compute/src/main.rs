//! (contract pending)
fn main() {}
