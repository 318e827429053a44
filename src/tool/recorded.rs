//! Replies of a server, as the tests of several commands use them.

pub(super) const STATS_BEFORE: &str = "STAT pid 1
STAT uptime 3600
STAT version 1.6.45
STAT rusage_user 10.0
STAT rusage_system 10.0
STAT curr_connections 50
STAT cmd_get 1000000
STAT cmd_set 100000
STAT get_hits 900000
STAT get_misses 100000
STAT evictions 1000
STAT bytes_read 50000000
STAT bytes_written 900000000
STAT bytes 805306368
STAT limit_maxbytes 1073741824
STAT curr_items 3000000
STAT threads 4
";

/// A second later: 100,000 gets with 98 % hits, 5,000 sets, 12 evictions.
pub(super) const STATS_AFTER: &str = "STAT pid 1
STAT uptime 3601
STAT version 1.6.45
STAT rusage_user 10.2
STAT rusage_system 10.3
STAT curr_connections 52
STAT cmd_get 1100000
STAT cmd_set 105000
STAT get_hits 998000
STAT get_misses 102000
STAT evictions 1012
STAT bytes_read 55000000
STAT bytes_written 990000000
STAT bytes 805306368
STAT limit_maxbytes 1073741824
STAT curr_items 3000000
STAT threads 4
";

pub(super) const LATENCY: &str = "STAT get_hit_count 98000
STAT get_hit_mean_us 9.5
STAT get_hit_p50_us 8.0
STAT get_hit_p90_us 15.0
STAT get_hit_p99_us 30.0
STAT get_hit_p999_us 90.0
STAT get_hit_max_us 2100.0
STAT set_count 5000
STAT set_p50_us 12.0
STAT set_p90_us 25.0
STAT set_p99_us 60.0
STAT set_p999_us 110.0
STAT set_max_us 900.0
STAT delete_count 0
STAT replies_blocked 3
STAT slow_requests 1
";

/// 100 requests of get_hit: 90 of 5 to 8 µs, 10 of 65 to 128 µs.
pub(super) const HISTOGRAM: &str = "STAT get_hit:le_4 0
STAT get_hit:le_8 90
STAT get_hit:le_16 90
STAT get_hit:le_32 90
STAT get_hit:le_64 90
STAT get_hit:le_128 100
STAT get_hit:le_inf 100
STAT turn:le_16 50
STAT turn:le_inf 50
";

pub(super) const HOT_KEYS: &str = "STAT sample_mean 128
STAT window_seconds 10.0
STAT samples 8203
STAT operations_per_second 105000
STAT 1:key user%3A42
STAT 1:ops_per_second 12600
STAT 1:share_percent 12.0
STAT 1:error_percent 0.4
STAT 1:read_percent 99.0
STAT 1:hit_percent 100.0
STAT 1:bytes_per_second 1260000
STAT 2:key page%3Ahome
STAT 2:ops_per_second 2100
STAT 2:share_percent 2.0
STAT 2:error_percent 0.2
STAT 2:read_percent 50.0
STAT 2:hit_percent 97.5
STAT 2:bytes_per_second 84000000
";

pub(super) const PREFIXES: &str = "STAT sample_mean 128
STAT repeated_miss_percent 31.0
STAT 0:prefix 
STAT 0:ops_per_second 10
STAT 0:hit_percent 50.0
STAT 0:bytes_held 1000
STAT 0:memory_percent 0.1
STAT 1:prefix user
STAT 1:gets 800000
STAT 1:hits 790000
STAT 1:misses 10000
STAT 1:ops_per_second 90000
STAT 1:hit_percent 98.8
STAT 1:bytes_held 400000000
STAT 1:memory_percent 49.9
STAT 1:hits_per_second_per_mib 230.5
STAT 1:ttl_none_percent 0.0
STAT 1:ttl_mean_seconds 3600.0
STAT 1:value_mean_bytes 120.0
STAT 2:prefix page
STAT 2:ops_per_second 9000
STAT 2:hit_percent 61.0
STAT 2:bytes_held 401000000
STAT 2:memory_percent 50.0
STAT 2:hits_per_second_per_mib 14.0
STAT 2:ttl_none_percent 75.0
STAT 2:ttl_mean_seconds 86400.0
STAT 2:value_mean_bytes 40000.0
";

pub(super) const SLOW: &str = "STAT 1:time 1764300000.000
STAT 1:worker 2
STAT 1:service_us 15300
STAT 1:wait_us 200
STAT 1:kind get_hit
STAT 1:operations 500
STAT 1:bytes 5000000
STAT 1:connection 31
STAT 1:command get
STAT 1:key page%3Ahome
";

pub(super) const ITEMS_BEFORE: &str = "STAT items:1:number 1000
STAT items:1:age 4000
STAT items:1:evicted 10
STAT items:1:evicted_time 7200
STAT items:5:number 2000
STAT items:5:age 90
STAT items:5:evicted 0
";
pub(super) const ITEMS_AFTER: &str = "STAT items:1:number 1010
STAT items:1:age 4001
STAT items:1:evicted 22
STAT items:1:evicted_time 7200
STAT items:5:number 2000
STAT items:5:age 91
STAT items:5:evicted 0
";
pub(super) const SLABS_BEFORE: &str = "STAT 1:chunk_size 96
STAT 1:chunks_per_page 10922
STAT 1:total_pages 1
STAT 1:total_chunks 10922
STAT 1:used_chunks 1000
STAT 1:get_hits 500
STAT 1:cmd_set 100
STAT 5:chunk_size 240
STAT 5:chunks_per_page 4369
STAT 5:total_pages 2
STAT 5:total_chunks 8738
STAT 5:used_chunks 2000
STAT 5:get_hits 0
STAT 5:cmd_set 0
STAT active_slabs 2
";
pub(super) const SLABS_AFTER: &str = "STAT 1:chunk_size 96
STAT 1:chunks_per_page 10922
STAT 1:total_pages 1
STAT 1:total_chunks 10922
STAT 1:used_chunks 1010
STAT 1:get_hits 900
STAT 1:cmd_set 150
STAT 5:chunk_size 240
STAT 5:chunks_per_page 4369
STAT 5:total_pages 2
STAT 5:total_chunks 8738
STAT 5:used_chunks 2000
STAT 5:get_hits 70
STAT 5:cmd_set 3
STAT active_slabs 2
";
