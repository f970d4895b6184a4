#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| recording::fuzz_pcap(data));
