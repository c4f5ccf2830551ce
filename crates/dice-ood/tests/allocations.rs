//! Scoring one input allocates nothing once it has been called before.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dice_ood::{LinearHead, Spec, Statistics};
use ndarray::Array1;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every request on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn scoring_one_input_allocates_nothing_once_warm() {
    let statistics = Statistics::from_mean_activation(Array1::from_iter((0..300).map(f64::from))).unwrap();
    // Few classes and many: both layouts.
    for classes in [3, 200] {
        let weight = (0..classes * 300).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let head = Arc::new(LinearHead::from_rows(weight, vec![0.5; classes], 300).unwrap());
        let detector = "dice(0.8) | energy".parse::<Spec>().unwrap().fit(&head, &statistics).unwrap();
        let input = vec![0.25; 300];
        let first = detector.score_one(&input).unwrap();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..100 {
            assert_eq!(detector.score_one(&input).unwrap(), first);
        }
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
    }
}
