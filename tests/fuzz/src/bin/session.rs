#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pg_wire::fuzz_session(data));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    pgwitness_fuzz::mutate(data, size, max_size, seed, pgwitness_fuzz::STEPS)
});
