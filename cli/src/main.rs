//! The command line of Redoubt.
fn main() {}
