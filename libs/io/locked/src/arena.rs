//! The arena. What the unsafe code rests on:
//!   A1  a chunk is mapped once, readable, writable, zeroed, and never unmapped or moved;
//!   A2  a chunk is cut into slots of 32 bytes that do not overlap;
//!   A3  a [`Slot`] of each of these exists once: it has no copy, and is either free or in one
//!       [`LockedKey`];
//!   A4  so whoever has a slot by `&mut` is alone with its bytes, and by `&` only reads with others.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use nix::sys::resource::{Resource, getrlimit};
use sealed::KeyMemory;
use zeroize::Zeroize;

const KEY_BYTES: usize = 32;
const CHUNK_BYTES: NonZeroUsize = NonZeroUsize::new(1 << 20).expect("it is not zero");
/// How many keys one chunk holds.
pub const KEYS_PER_CHUNK: usize = CHUNK_BYTES.get() / KEY_BYTES;
const _: () = assert!(
    CHUNK_BYTES.get().is_multiple_of(KEY_BYTES),
    "A2: nothing is left over"
);

static FREE: Mutex<Vec<Slot>> = Mutex::new(Vec::new());

/// Memory for keys cannot be locked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot lock {} KiB of memory for keys: {errno}. Allow this process more locked memory than \
     its limit (RLIMIT_MEMLOCK) of {limit}: LimitMEMLOCK= in a unit of systemd, ulimit -l in a shell",
    CHUNK_BYTES.get() >> 10
)]
pub struct NoLockedMemory {
    errno: nix::Error,
    limit: String,
}

impl NoLockedMemory {
    fn new(errno: nix::Error) -> Self {
        let limit = match getrlimit(Resource::RLIMIT_MEMLOCK) {
            Ok((soft, _)) if soft == nix::sys::resource::rlim_t::MAX => "infinity".to_owned(),
            Ok((soft, _)) => format!("{} KiB", soft >> 10),
            Err(_) => "an unknown size".to_owned(),
        };
        Self { errno, limit }
    }
}

/// Locks memory for the first keys, unless that was done.
///
/// # Errors
/// [`NoLockedMemory`]: the process must not go on to hold keys.
pub fn begin() -> Result<(), NoLockedMemory> {
    let slot = take()?;
    free().push(slot);
    Ok(())
}

/// A key in locked memory; wiped when dropped. It has no `Clone` and no `Debug`.
pub struct LockedKey(Option<Slot>);

impl LockedKey {
    /// Copies a key there; whoever owns `bytes` wipes them.
    ///
    /// # Errors
    /// [`NoLockedMemory`] where no more of it can be had.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Result<Self, NoLockedMemory> {
        let mut slot = take()?;
        slot.bytes_mut().copy_from_slice(bytes);
        Ok(Self(Some(slot)))
    }
}

impl KeyMemory for LockedKey {
    fn bytes(&self) -> &[u8; KEY_BYTES] {
        let slot = self.0.as_ref();
        slot.expect("the slot is taken out by the drop alone")
            .bytes()
    }
}

impl Drop for LockedKey {
    fn drop(&mut self) {
        if let Some(mut slot) = self.0.take() {
            slot.bytes_mut().zeroize();
            free().push(slot);
        }
    }
}

/// The right to 32 bytes of a chunk.
struct Slot(NonNull<[u8; KEY_BYTES]>);

// SAFETY: by A1 the memory is there for all threads and for good, and by A3 a slot that is sent
// leaves nothing behind through which its sender could reach the bytes.
#[expect(unsafe_code, reason = "A1, A3")]
unsafe impl Send for Slot {}
// SAFETY: by A4 nobody writes through a shared slot.
#[expect(unsafe_code, reason = "A4")]
unsafe impl Sync for Slot {}

#[expect(unsafe_code, reason = "A1 to A4")]
impl Slot {
    fn bytes(&self) -> &[u8; KEY_BYTES] {
        // SAFETY: mapped and initialized (A1), of this slot alone (A2, A3), and not written while
        // the borrow of `self` lasts (A4). An array of bytes has no alignment to keep.
        unsafe { self.0.as_ref() }
    }

    fn bytes_mut(&mut self) -> &mut [u8; KEY_BYTES] {
        // SAFETY: as above; the borrow of `self` keeps all others out (A4).
        unsafe { self.0.as_mut() }
    }
}

fn free() -> MutexGuard<'static, Vec<Slot>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take() -> Result<Slot, NoLockedMemory> {
    let mut free = free();
    if free.is_empty() {
        let chunk = chunk().map_err(NoLockedMemory::new)?;
        free.extend(cut(chunk));
    }
    let slot = free.pop();
    Ok(slot.expect("a chunk has slots"))
}

/// A fresh chunk, whose address only the slots of [`cut`] keep (A1, A3).
#[expect(unsafe_code, reason = "the memory is asked for here")]
fn chunk() -> nix::Result<NonNull<[u8; KEY_BYTES]>> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice touches no memory that is in use.
    let start = unsafe { mmap_anonymous(None, CHUNK_BYTES, access, MapFlags::MAP_PRIVATE) }?;
    let guard = || {
        // SAFETY: exactly the mapping made above. None of the calls changes what is read from it
        // or written to it: they pin it, and keep it out of dumps and children.
        unsafe {
            madvise(start, CHUNK_BYTES.get(), MmapAdvise::MADV_DONTDUMP)?;
            madvise(start, CHUNK_BYTES.get(), MmapAdvise::MADV_WIPEONFORK)?;
            mlock(start, CHUNK_BYTES.get())
        }
    };
    if let Err(errno) = guard() {
        // SAFETY: exactly the mapping made above, to which nothing points any more.
        unsafe { munmap(start, CHUNK_BYTES.get()) }?;
        return Err(errno);
    }
    Ok(start.cast())
}

/// The slots of a chunk that was not cut before (A2, A3).
#[expect(unsafe_code, reason = "A2")]
fn cut(chunk: NonNull<[u8; KEY_BYTES]>) -> impl Iterator<Item = Slot> {
    (0..KEYS_PER_CHUNK).map(move |n| {
        // SAFETY: below KEYS_PER_CHUNK, so that the slot ends inside of the chunk.
        Slot(unsafe { chunk.add(n) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping that holds `key`.
    fn flags(key: &LockedKey) -> Vec<String> {
        let address = key.bytes().as_ptr().addr();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().unwrap().split_once('-');
            let bound = |hex: &str| usize::from_str_radix(hex, 16).ok();
            if let Some((from, to)) = range.and_then(|(a, b)| Some((bound(a)?, bound(b)?))) {
                inside = (from..to).contains(&address);
            }
            if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                return flags.split_whitespace().map(str::to_owned).collect();
            }
        }
        panic!("the key is in no mapping")
    }

    #[test]
    fn keys_are_pinned_and_in_no_dump_and_no_child() {
        begin().unwrap();
        let key = LockedKey::new(&[7; 32]).unwrap();
        let flags = flags(&key);
        for (flag, meaning) in [("lo", "locked"), ("dd", "no dump"), ("wf", "wiped on fork")] {
            assert!(flags.iter().any(|f| f == flag), "K9: {meaning}: {flags:?}");
        }
    }

    #[test]
    #[expect(unsafe_code, reason = "looks at a slot behind its back")]
    fn a_key_is_wiped_when_dropped_and_its_slot_is_used_again() {
        let key = LockedKey::new(&[9; 32]).unwrap();
        let address = key.bytes().as_ptr();
        assert_eq!(key.bytes(), &[9; 32]);
        drop(key);
        // SAFETY: chunks are never unmapped (A1), and this test runs in a process of its own.
        let left = unsafe { std::slice::from_raw_parts(address, 32) };
        assert_eq!(left, [0; 32], "FORMAT 9");
        let next = LockedKey::new(&[8; 32]).unwrap();
        assert_eq!(next.bytes().as_ptr(), address);
    }

    #[test]
    fn keys_of_many_threads_do_not_touch_each_other_and_more_chunks_come() {
        let fill = |first: usize| {
            let number = |n: usize| {
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&(first + n).to_le_bytes());
                bytes
            };
            let keys: Vec<LockedKey> = (0..KEYS_PER_CHUNK)
                .map(|n| LockedKey::new(&number(n)).unwrap())
                .collect();
            for (n, key) in keys.iter().enumerate() {
                assert_eq!(key.bytes(), &number(n), "A3");
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..3 {
                scope.spawn(move || fill(thread * KEYS_PER_CHUNK));
            }
        });
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let refused = NoLockedMemory::new(nix::Error::ENOMEM).to_string();
        for part in ["1024 KiB", "RLIMIT_MEMLOCK", "LimitMEMLOCK=", "ulimit -l"] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}
