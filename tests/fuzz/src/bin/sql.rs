#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sql_meaning::fuzz_sql(data));
