//! An allocator that counts what each thread holds.
//!
//! A program that wants the figures names it as its global allocator.
#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator with a counter for each thread.
#[derive(Debug)]
pub struct Counting;

fn add(size: usize) {
    let held = HELD.get().wrapping_add(size);
    HELD.set(held);
    // What another thread has allocated may be freed here: the counter wraps, no peak is seen.
    if held > PEAK.get() && held < usize::MAX / 2 {
        PEAK.set(held);
    }
}

fn take(size: usize) {
    HELD.set(HELD.get().wrapping_sub(size));
}

// WHY: the trait is unsafe to implement.
// SAFETY: every call goes to the system's allocator unchanged; the counters are plain numbers of
// the calling thread and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        take(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        take(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Forgets what the thread has held until now; the number that [`peak_since`] counts from.
#[must_use]
pub fn begin() -> usize {
    // A thread frees what others have allocated, from its first moment on: room to go below.
    let middle = usize::MAX / 4;
    PEAK.set(middle);
    HELD.set(middle);
    middle
}

/// Most that the thread has held beyond `before`.
#[must_use]
pub fn peak_since(before: usize) -> usize {
    PEAK.get().saturating_sub(before)
}

/// Whether this program counts.
#[must_use]
pub fn counts() -> bool {
    let before = begin();
    let some = std::hint::black_box(vec![0_u8; 4096]);
    drop(some);
    peak_since(before) >= 4096
}
