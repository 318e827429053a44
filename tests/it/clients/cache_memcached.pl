# Cache::Memcached, the oldest client. munin's plugin uses it.
use strict;
use warnings;
use Cache::Memcached;

my @ports = @ARGV;
die "three ports\n" unless @ports == 3;
my @addresses = map { "127.0.0.1:$_" } @ports;

sub same {
    my ($expected, $got, $what) = @_;
    my ($wanted, $found) = map { defined $_ ? substr($_, 0, 200) : 'undef' } $expected, $got;
    my $is = defined $expected ? defined $got && $expected eq $got : !defined $got;
    die "$what: expected $wanted, got $found\n" unless $is;
}

sub connect_to {
    return Cache::Memcached->new({
        servers => [@_], compress_threshold => 10_000, connect_timeout => 10, select_timeout => 10,
    });
}

sub commands {
    my ($client) = @_;
    same(undef, $client->get('nothing'), 'a miss');
    same(1, $client->set('key', 'value', 100), 'set');
    same('value', $client->get('key'), 'get');
    same('', $client->set('empty', '') && $client->get('empty'), 'an empty value');
    $client->set('bytes', "a\r\nEND\r\n\0\xff");
    same("a\r\nEND\r\n\0\xff", $client->get('bytes'), 'bytes');
    $client->set('object', { user => 7, roles => [qw(reader writer)] });
    same('writer', $client->get('object')->{roles}[1], 'an object');
    my $long = 'compress me ' x 10_000;
    $client->set('long', $long);
    same($long, $client->get('long'), 'a compressed value');

    same('', $client->add('key', 'x') || '', 'add of what is there');
    same(1, $client->add('new', 'b'), 'add');
    same(1, $client->replace('new', 'b'), 'replace');
    same('', $client->replace('nothing', 'x') || '', 'replace of nothing');
    same(1, $client->append('new', 'c') && $client->prepend('new', 'a'), 'append and prepend');
    same('abc', $client->get('new'), 'what was joined');
    same(1, $client->delete('new'), 'delete');
    same('', $client->delete('new') || '', 'delete of nothing');

    $client->set('counter', 10);
    same(15, $client->incr('counter', 5), 'incr');
    same(0, $client->decr('counter', 50) + 0, 'decr below nothing');
    same(undef, $client->incr('nothing'), 'incr of nothing');

    my $now = time;
    for ([0, 'x'], [100, 'x'], [2592000, 'x'], [$now + 100, 'x'], [$now - 10, undef], [-1, undef]) {
        my ($expiry, $value) = @$_;
        $client->set('timed', 'x', $expiry);
        same($value, $client->get('timed'), "expiry $expiry");
    }

    my %many = map { ("many-$_" => "value $_") } 1 .. 300;
    $client->set($_, $many{$_}) for keys %many;
    my $got = $client->get_multi(keys %many, 'nothing');
    same(300, scalar keys %$got, 'get_multi');
    same($many{$_}, $got->{$_}, "$_ of get_multi") for keys %many;

    my $blob = join '', map { pack 'N', $_ * 2654435761 % 4294967296 } 1 .. 225_000;
    same(1, $client->set('blob', $blob), 'a large value');
    same($blob, $client->get('blob'), 'a large value read');
    same('', $client->set('huge', $blob . reverse $blob) || '', 'a value too large');
    same(undef, $client->get('huge'), 'what was too large');
    same('value', $client->get('key'), 'what was there before');

    # Without replies.
    $client->set('quiet', 'x');
    $client->delete('quiet');
    same(undef, $client->get('quiet'), 'what was deleted');
}

# The statistics that munin draws, and the other kinds that this client can ask for.
sub statistics {
    my ($client, $servers) = @_;
    my $all = $client->stats(['misc'])->{hosts};
    same($servers, scalar keys %$all, 'servers with statistics');
    for my $host (keys %$all) {
        my $misc = $all->{$host}{misc};
        for (qw(get_hits get_misses cmd_get cmd_set total_items total_connections bytes_read bytes_written curr_items
            curr_connections bytes)) {
            die "$host: $_ is not a number\n" unless defined $misc->{$_} && $misc->{$_} =~ /^\d+$/;
            die "$host: $_ is 0\n" unless $misc->{$_} > 0 || $_ eq 'get_misses';
        }
    }
    my $slabs = $client->stats(['slabs', 'items', 'malloc', 'sizes']);
    same($servers, scalar keys %{ $slabs->{hosts} }, 'servers with classes');
    for my $host (values %{ $slabs->{hosts} }) {
        die "no class\n" unless $host->{slabs} =~ /^STAT \d+:chunk_size \d+\r?$/m;
        die "no items\n" unless $host->{items} =~ /^STAT items:\d+:number \d+\r?$/m;
    }
}

for my $servers ([$addresses[0]], [@addresses]) {
    my $client = connect_to(@$servers);
    commands($client);
    statistics($client, scalar @$servers);
    same(1, $client->flush_all, 'flush_all');
    same(undef, $client->get('key'), 'get after a flush');
    $client->disconnect_all;
}

$| = 1;
my $client = connect_to(@addresses);
$client->set("before-$_", 1) for 1 .. 30;
print "restart\n";
<STDIN>;
for (1 .. 100) {
    $client->set('again', 'x');
    last if ($client->get('again') // '') eq 'x';
}
same('x', $client->get('again'), 'get after a restart');
same(undef, $client->get("before-$_"), 'what was there before a restart') for 1 .. 30;
print "ok\n";
