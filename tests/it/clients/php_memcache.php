<?php
// PHP's older extension memcache. It has a client of its own, without libmemcached. The script uses every command, a
// ring of servers, types in the flags, and a restart. The arguments are three ports and the protocol: ascii or binary.

[$protocol, $ports] = [$argv[4], array_slice($argv, 1, 3)];
ini_set('memcache.protocol', $protocol);
ini_set('memcache.hash_strategy', 'consistent');
ini_set('memcache.allow_failover', '0');
$binary = $protocol === 'binary';

function same($expected, $got, $what)
{
    if ($expected !== $got) {
        [$wanted, $found] = array_map(fn($value) => substr(var_export($value, true), 0, 200), [$expected, $got]);
        fwrite(STDERR, "$what: expected $wanted, got $found\n");
        exit(1);
    }
}

function connect_to($ports)
{
    $cache = new Memcache();
    foreach ($ports as $port) {
        same(true, $cache->addServer('127.0.0.1', (int) $port, true, 1, 10, 0), 'addServer');
    }
    return $cache;
}

function commands($cache)
{
    same(false, $cache->get('nothing'), 'a miss');
    foreach (['text', '', 'ünïcode', "a\r\nEND\r\n\0\xff", 42, -7, 2.5, true, false, [1, 'two'], ['a' => ['b' => null]]] as $value) {
        same(true, $cache->set('typed', $value, 0, 100), 'set');
        same($value, $cache->get('typed'), 'a value with its type');
    }
    $long = str_repeat('compress me ', 10000);
    same(true, $cache->set('long', $long, MEMCACHE_COMPRESSED, 100), 'set of what is compressed');
    same($long, $cache->get('long'), 'a compressed value');
    mt_srand(1);
    $blob = '';
    for ($i = 0; $i < 225000; $i++) {
        $blob .= pack('N', mt_rand());
    }
    same(true, $cache->set('blob', $blob), 'a large value');
    same(true, $blob === $cache->get('blob'), 'a large value read');
    same(false, @$cache->set('huge', $blob . strrev($blob)), 'a value too large');
    same(false, $cache->get('huge'), 'what was too large');

    $cache->set('key', 'value');
    same(false, $cache->add('key', 'x'), 'add of what is there');
    same(true, $cache->add('new', 'b'), 'add');
    same(true, $cache->append('new', 'c') && $cache->prepend('new', 'a'), 'append and prepend');
    same('abc', $cache->get('new'), 'what was joined');
    same(true, $cache->replace('new', 'b'), 'replace');
    same(false, @$cache->replace('nothing', 'x'), 'replace of nothing');
    same(true, $cache->delete('new'), 'delete');
    same(false, $cache->delete('new'), 'delete of nothing');

    $flags = $cas = null;
    same('value', $cache->get('key', $flags, $cas), 'get with a cas id');
    same(true, $cas > 0, 'a cas id');
    same(true, $cache->cas('key', 'mine', 0, 100, $cas), 'cas');
    same(false, $cache->cas('key', 'late', 0, 100, $cas), 'cas, late');
    same('mine', $cache->get('key'), 'what cas wrote');

    $cache->set('counter', 10);
    same(15, $cache->increment('counter', 5), 'increment');
    same(0, $cache->decrement('counter', 50), 'decrement below nothing');
    same(false, $cache->increment('nothing'), 'increment of nothing');

    $now = time();
    foreach ([[0, 'x'], [100, 'x'], [2592000, 'x'], [$now + 100, 'x'], [$now - 10, false]] as [$expiry, $expected]) {
        $cache->set('timed', 'x', 0, $expiry);
        same($expected, $cache->get('timed'), "expiry $expiry");
    }

    $many = [];
    for ($i = 0; $i < 300; $i++) {
        $many["many-$i"] = "value $i";
        same(true, $cache->set("many-$i", "value $i"), 'set of many');
    }
    $got = $cache->get([...array_keys($many), 'nothing']);
    ksort($got);
    ksort($many);
    same($many, $got, 'get of many');
}

function statistics($cache, $ports)
{
    $told = $cache->getExtendedStats();
    same(count($ports), count($told), 'servers with statistics');
    foreach ($told as $stats) {
        same(true, $stats['pid'] > 0 && $stats['curr_items'] > 0, 'statistics');
    }
    foreach ($cache->getExtendedStats('slabs') as $classes) {
        same(true, $classes['active_slabs'] > 0, 'classes');
    }
    foreach ($cache->getExtendedStats('items') as $items) {
        same(true, count($items['items']) > 0, 'classes with items');
    }
    same(1, preg_match('/^1\.6\.\d+$/', $cache->getVersion()), 'version');
}

foreach ([array_slice($ports, 0, 1), $ports] as $used) {
    $cache = connect_to($used);
    commands($cache);
    // The client asks for statistics only with the text protocol.
    if (!$binary) {
        statistics($cache, $used);
    }
    same(true, $cache->flush(), 'flush');
    same(false, $cache->get('key'), 'get after a flush');
    $cache->close();
}

$cache = connect_to($ports);
for ($i = 0; $i < 30; $i++) {
    same(true, $cache->set("before-$i", 'x'), 'set before a restart');
}
echo "restart\n";
fgets(STDIN);
for ($i = 0; $i < 30; $i++) {
    for ($attempt = 0; $attempt < 100 && !@$cache->set("again-$i", 'x'); $attempt++) {
    }
    same('x', $cache->get("again-$i"), 'get after a restart');
    same(false, $cache->get("before-$i"), 'what was there before a restart');
}
echo "ok\n";
