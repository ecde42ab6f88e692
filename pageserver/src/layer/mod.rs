//! Layers: what the keys of a timeline held, by LSN.
//!
//! New values go to a [`memory::MemoryLayer`]; a full one is written as a layer file
//! ([`mod@file`]), which is sealed and put into the bucket; [`map`] knows which files to ask.

pub(crate) mod collect;
pub(crate) mod file;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod sealed_file;
