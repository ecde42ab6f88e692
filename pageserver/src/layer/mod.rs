//! Layers: what the keys of a timeline held, by LSN.
//!
//! New values go to a [`memory::MemoryLayer`]; a full one is written as a layer file
//! ([`mod@file`]), which is sealed and put into the bucket; [`map`] knows which files to ask, and
//! [`cache`] what of them is at hand.

pub(crate) mod cache;
pub(crate) mod collect;
pub(crate) mod file;
pub(crate) mod map;
pub(crate) mod memory;
mod object;
pub(crate) mod sealed_file;
pub(crate) mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
