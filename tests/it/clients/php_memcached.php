<?php
// php-memcached as frameworks use it: sessions, rate limits, cached objects, several servers, locks. The arguments are
// the ports of three servers and the protocol: `text` or `binary`.
error_reporting(E_ALL);
set_error_handler(function ($number, $message, $file, $line) {
    throw new ErrorException($message, 0, $number, $file, $line);
});

$protocol = array_pop($argv);
$ports = array_slice($argv, 1);
if (count($ports) != 3 || !in_array($protocol, ['text', 'binary'])) {
    exit("usage: php_memcached.php PORT PORT PORT text|binary\n");
}

function same($expected, $got, string $what): void
{
    if ($expected !== $got) {
        $shown = fn ($value) => substr(json_encode($value), 0, 300);
        throw new Exception("$what: expected {$shown($expected)}, got {$shown($got)}");
    }
}

function connect(array $ports, string $protocol, array $options = []): Memcached
{
    $client = new Memcached();
    $client->setOptions($options + [
        Memcached::OPT_BINARY_PROTOCOL => $protocol == 'binary',
        Memcached::OPT_LIBKETAMA_COMPATIBLE => true,
        Memcached::OPT_TCP_NODELAY => true,
        Memcached::OPT_RETRY_TIMEOUT => 0,
    ]);
    foreach ($ports as $port) {
        $client->addServer('127.0.0.1', (int) $port);
    }
    return $client;
}

function commands(Memcached $client, Memcached $rival): void
{
    same(false, $client->get('nothing'), 'a miss');
    same(Memcached::RES_NOTFOUND, $client->getResultCode(), 'the code of a miss');
    same(true, $client->set('key', 'value', 100), 'set');
    same('value', $client->get('key'), 'get');

    // The flags carry types and compression.
    $object = new ArrayObject(['a' => 1, 'b' => [true, null, 'ünïcode']]);
    foreach (['', 'text', 42, -7, 1.5, true, false, [1, 'two' => [3]], str_repeat('compress me ', 1000)] as $value) {
        same(true, $client->set('typed', $value), 'set of a ' . gettype($value));
        same($value, $client->get('typed'), 'get of a ' . gettype($value));
    }
    $client->set('typed', $object);
    same(true, $client->get('typed') == $object, 'an object');

    same(false, $client->add('key', 'x'), 'add of what is there');
    // The binary protocol has another code for this.
    $binary = $client->getOption(Memcached::OPT_BINARY_PROTOCOL);
    same($binary ? Memcached::RES_DATA_EXISTS : Memcached::RES_NOTSTORED, $client->getResultCode(), 'its code');
    same(true, $client->add('new', 'b'), 'add');
    same(true, $client->replace('new', 'b'), 'replace');
    same(false, $client->replace('nothing', 'x'), 'replace of nothing');
    $client->setOption(Memcached::OPT_COMPRESSION, false);
    same(true, $client->append('new', 'c') && $client->prepend('new', 'a'), 'append and prepend');
    same('abc', $client->get('new'), 'what was joined');
    $client->setOption(Memcached::OPT_COMPRESSION, true);
    same(true, $client->delete('new'), 'delete');
    same(false, $client->delete('new'), 'delete of nothing');
    same(Memcached::RES_NOTFOUND, $client->getResultCode(), 'its code');

    // Cas in a loop, as users write it. Another client writes once in between.
    $client->set('balance', 100);
    $rounds = 0;
    do {
        $got = $client->get('balance', null, Memcached::GET_EXTENDED);
        if ($rounds++ == 0) {
            $rival->set('balance', 50);
        }
        $client->cas($got['cas'], 'balance', $got['value'] + 1);
    } while ($client->getResultCode() == Memcached::RES_DATA_EXISTS);
    same([2, 51], [$rounds, $client->get('balance')], 'a loop of cas');

    // Counters: a limit of requests per minute.
    same(true, $client->set('hits', 10), 'a counter');
    same(15, $client->increment('hits', 5), 'increment');
    same(0, $client->decrement('hits', 50), 'decrement below nothing');
    same(false, $client->increment('nothing'), 'increment of nothing');
    if ($binary) {
        same(7, $client->increment('made', 1, 7, 100), 'increment that makes');
        same(8, $client->increment('made', 1, 7, 100), 'increment of what was made');
    }

    // Expiry: none, in a while, a month, a date, a date long ago, touched.
    foreach ([[0, 'x'], [100, 'x'], [2592000, 'x'], [time() + 100, 'x'], [time() - 10, false]] as [$expiry, $value]) {
        $client->set('timed', 'x', $expiry);
        same($value, $client->get('timed'), "expiry $expiry");
    }
    $client->set('timed', 'x', 100);
    same(true, $client->touch('timed', 200), 'touch');
    same(true, $client->touch('timed', time() - 10), 'touch with a date long ago');
    same(false, $client->get('timed'), 'get after it');
    same(false, $client->touch('nothing', 100), 'touch of nothing');

    $many = [];
    for ($i = 0; $i < 300; $i++) {
        $many["many-$i"] = ['id' => $i];
    }
    same(true, $client->setMulti($many, 100), 'setMulti');
    $got = $client->getMulti(array_keys($many));
    ksort($got, SORT_NATURAL);
    same($many, $got, 'getMulti');
    same(['many-7' => ['id' => 7]], $client->getMulti(['nothing', 'many-7']), 'getMulti with a miss');
    $ordered = $client->getMulti(['many-2', 'nothing', 'many-1'], Memcached::GET_PRESERVE_ORDER);
    same(['many-2' => ['id' => 2], 'nothing' => null, 'many-1' => ['id' => 1]], $ordered, 'getMulti in order');
    $extended = $client->getMulti(['many-1'], Memcached::GET_EXTENDED);
    same(true, is_int($extended['many-1']['cas']) && $extended['many-1']['cas'] > 0, 'getMulti with cas');
    same(array_fill_keys(array_keys($many), true), $client->deleteMulti(array_keys($many)), 'deleteMulti');
    same([], $client->getMulti(array_keys($many)), 'getMulti of what was deleted');

    // The client asks now and fetches later.
    $client->setMulti(['one' => 1, 'two' => 2]);
    same(true, $client->getDelayed(['one', 'two']), 'getDelayed');
    $fetched = array_column($client->fetchAll(), 'value', 'key');
    ksort($fetched);
    same(['one' => 1, 'two' => 2], $fetched, 'fetchAll');

    // A session with its lock, as the session handler of this extension uses it.
    same(true, $client->add('lock.session', '1', 30), 'the lock of a session');
    same(false, $client->add('lock.session', '1', 30), 'a lock that is held');
    same(true, $client->set('session', serialize(['user' => 7]), 1440), 'a session');
    same(true, $client->touch('session', 1440), 'a session that was not changed');
    same(true, $client->delete('lock.session'), 'the lock given back');
    same(['user' => 7], unserialize($client->get('session')), 'a session read');

    $blob = '';
    for ($i = 0; strlen($blob) < 900_000; $i++) {
        $blob .= md5((string) $i, true);
    }
    same(true, $client->set('blob', $blob), 'a large value');
    same(true, $client->get('blob') === $blob, 'a large value read');
    same(false, $client->set('huge', $blob . $blob), 'a value too large');
    same(Memcached::RES_E2BIG, $client->getResultCode(), 'its code');
    same(false, $client->get('huge'), 'what was too large');
    same('value', $client->get('key'), 'what was there before');
}

function statistics(Memcached $client, int $servers): void
{
    $versions = array_values($client->getVersion());
    same($servers, count($versions), 'versions');
    foreach ($versions as $version) {
        same(1, preg_match('/^1\.6\.\d+$/', $version), "version $version");
    }
    $stats = $client->getStats();
    same($servers, count($stats), 'statistics');
    foreach ($stats as $one) {
        same(true, $one['pid'] > 0 && $one['limit_maxbytes'] == 64 << 20, 'values of statistics');
    }
    same(true, array_sum(array_column($stats, 'curr_items')) > 5, 'items of all servers');
    foreach ($client->getStats('settings') as $settings) {
        same('1024', (string) $settings['maxconns'], 'maxconns');
    }
}

foreach ([1, 3] as $servers) {
    $client = connect(array_slice($ports, 0, $servers), $protocol);
    commands($client, connect(array_slice($ports, 0, $servers), $protocol));
    statistics($client, $servers);
    same(true, $client->flush(), 'flush');
    same(false, $client->get('key'), 'get after a flush');
}

// Writes without replies, and writes that the client keeps back and sends together.
foreach ([Memcached::OPT_NOREPLY, Memcached::OPT_BUFFER_WRITES] as $option) {
    $client = connect($ports, $protocol, [$option => true]);
    for ($i = 0; $i < 200; $i++) {
        $client->set("quiet-$i", $i);
    }
    $client->delete('quiet-7');
    if ($option == Memcached::OPT_BUFFER_WRITES) {
        $client->flushBuffers();
    }
    // The client does not know when the server has executed them, so the script looks until they are there.
    $reader = connect($ports, $protocol);
    $keys = array_map(fn ($i) => "quiet-$i", range(0, 199));
    for ($i = 0; count($reader->getMulti($keys)) != 199 && $i < 2000; $i++) {
    }
    same(199, count($reader->getMulti($keys)), 'quiet sets');
    same(false, $reader->get('quiet-7'), 'a quiet delete');
    $reader->flush();
}

// Values under the same server key stay on one server.
$client = connect($ports, $protocol);
same(true, $client->setByKey('user-7', 'name', 'somebody'), 'setByKey');
same('somebody', $client->getByKey('user-7', 'name'), 'getByKey');

echo "restart\n";
fgets(STDIN);
for ($i = 0; $i < 100; $i++) {
    if ($client->set('again', 'x') && $client->get('again') === 'x') {
        break;
    }
}
same('x', $client->get('again'), 'get after a restart');
same(false, $client->getByKey('user-7', 'name'), 'what was there before a restart');
echo "ok\n";
