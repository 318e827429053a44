# Cache::Memcached::Fast, a client for Perl in C: commands with many keys, cas, noreply by void context.
use strict;
use warnings;
use Cache::Memcached::Fast;

my @ports = @ARGV;
die "three ports\n" unless @ports == 3;
my @addresses = map { "127.0.0.1:$_" } @ports;

sub same($$$) {
    my ($expected, $got, $what) = @_;
    my ($wanted, $found) = map { defined $_ ? substr($_, 0, 200) : 'undef' } $expected, $got;
    my $is = defined $expected ? defined $got && $expected eq $got : !defined $got;
    die "$what: expected $wanted, got $found\n" unless $is;
}

# The client returns true for success, '' for failure, and undef for an error.
sub connect_to {
    my ($servers, %options) = @_;
    return Cache::Memcached::Fast->new({
        servers => $servers, connect_timeout => 10, io_timeout => 10, failure_timeout => 0, max_failures => 0, ketama_points => 150,
        nowait => 1, utf8 => 1, compress_threshold => 10_000, compress_ratio => 0.9, %options,
    });
}

sub commands {
    my ($client) = @_;
    same(undef, $client->get('nothing'), 'a miss');
    same(1, $client->set('key', 'value', 100), 'set');
    same('value', $client->get('key'), 'get');
    same('', $client->set('empty', '') && $client->get('empty'), 'an empty value');
    my $result = $client->set('bytes', "a\r\nEND\r\n\0\xff");
    same("a\r\nEND\r\n\0\xff", $client->get('bytes'), 'bytes');
    $result = $client->set('letters', "\x{65e5}\x{672c}");
    same("\x{65e5}\x{672c}", $client->get('letters'), 'letters');
    $result = $client->set('object', { user => 7, roles => [qw(reader writer)] });
    same('writer', $client->get('object')->{roles}[1], 'an object');
    my $long = 'compress me ' x 10_000;
    $result = $client->set('long', $long);
    same($long, $client->get('long'), 'a compressed value');

    same('', $client->add('key', 'x'), 'add of what is there');
    same(1, $client->add('new', 'b'), 'add');
    same(1, $client->replace('new', 'b'), 'replace');
    same('', $client->replace('nothing', 'x'), 'replace of nothing');
    same(1, $client->append('new', 'c') && $client->prepend('new', 'a'), 'append and prepend');
    same('abc', $client->get('new'), 'what was joined');
    same('', $client->append('nothing', 'x'), 'append to nothing');
    same(1, $client->delete('new'), 'delete');
    same('', $client->delete('new'), 'delete of nothing');

    my ($cas, $value) = @{ $client->gets('key') };
    same('value', $value, 'gets');
    same(1, $client->cas('key', $cas, 'mine'), 'cas');
    same('', $client->cas('key', $cas, 'late'), 'cas, late');
    same('mine', $client->get('key'), 'what cas wrote');
    same('', $client->cas('nothing', $cas, 'x'), 'cas of nothing');

    $result = $client->set('counter', 10);
    same(15, $client->incr('counter', 5), 'incr');
    same(0, $client->decr('counter', 50) + 0, 'decr below nothing');
    same('', $client->incr('nothing'), 'incr of nothing');
    same(1, $client->touch('key', 100), 'touch');
    same('', $client->touch('nothing', 100), 'touch of nothing');
    same('mine', $client->gat(100, 'key'), 'gat');
    same(undef, $client->gat(100, 'nothing'), 'gat of nothing');
    same('mine', $client->gats(100, 'key')->[1], 'gats');

    my $now = time;
    for ([0, 'x'], [100, 'x'], [2592000, 'x'], [$now + 100, 'x'], [$now - 10, undef], [-1, undef]) {
        my ($expiry, $expected) = @$_;
        $result = $client->set('timed', 'x', $expiry);
        same($expected, $client->get('timed'), "expiry $expiry");
    }

    my $blob = join '', map { pack 'N', $_ * 2654435761 % 4294967296 } 1 .. 225_000;
    same(1, $client->set('blob', $blob), 'a large value');
    same($blob, $client->get('blob'), 'a large value read');
    # The client knows the limit and sends nothing.
    same(undef, $client->set('huge', $blob . reverse $blob) || undef, 'a value too large');
    same(undef, $client->get('huge'), 'what was too large');
    same('mine', $client->get('key'), 'what was there before');
}

# A command with many keys is one write to each server.
sub many {
    my ($client) = @_;
    my @names = map { "many-$_" } 1 .. 300;
    my $told = $client->set_multi(map { [$_, "value $_", 100] } @names);
    same(300, scalar(grep { $_ } values %$told), 'set_multi');
    my $got = $client->get_multi(@names, 'nothing');
    same(300, scalar keys %$got, 'get_multi');
    same("value $_", $got->{$_}, "$_ of get_multi") for @names;
    my $seen = $client->gets_multi(@names, 'nothing');
    same(300, scalar keys %$seen, 'gets_multi');
    $told = $client->cas_multi(map { [$_, $seen->{$_}[0], "mine $_"] } @names);
    same(300, scalar(grep { $_ } values %$told), 'cas_multi');
    $told = $client->cas_multi(map { [$_, $seen->{$_}[0], "late $_"] } @names);
    same(0, scalar(grep { $_ } values %$told), 'cas_multi, late');
    $told = $client->append_multi(map { [$_, '!'] } @names);
    same(300, scalar(grep { $_ } values %$told), 'append_multi');
    $got = $client->gat_multi(100, @names, 'nothing');
    same("mine $_!", $got->{$_}, "$_ of gat_multi") for @names;
    $told = $client->touch_multi(map { [$_, 100] } @names);
    same(300, scalar(grep { $_ } values %$told), 'touch_multi');
    $told = $client->add_multi(map { [$_, 'x'] } @names);
    same(0, scalar(grep { $_ } values %$told), 'add_multi of what is there');

    my $result = $client->set_multi(map { ["count-$_", $_] } 1 .. 50);
    my $counted = $client->incr_multi([ 'count-1', 10 ], (map { "count-$_" } 2 .. 50), 'nothing');
    same(11, $counted->{'count-1'}, 'incr_multi by ten');
    same($_ + 1, $counted->{"count-$_"}, 'incr_multi') for 2 .. 50;
    same('', $counted->{nothing}, 'incr_multi of nothing');
    $told = $client->delete_multi(@names, 'nothing');
    same(300, scalar(grep { $_ } values %$told), 'delete_multi');

    # The script ignores the results of these calls, so the client sends them as noreply and does not wait.
    $client->set("quiet-$_", $_) for 1 .. 500;
    $client->incr("quiet-$_") for 1 .. 500;
    $client->append('quiet-1', '!');
    $client->add('quiet-1', 'x');
    $client->replace('nothing', 'x');
    $client->delete('quiet-2');
    $client->touch('nothing', 100);
    $client->nowait_push;
    $got = $client->get_multi(map { "quiet-$_" } 1 .. 500);
    same(499, scalar keys %$got, 'what was set without replies');
    same($_ == 1 ? '2!' : $_ + 1, $got->{"quiet-$_"}, "quiet-$_") for 1, 3 .. 500;
}

for my $servers ([$addresses[0]], [@addresses]) {
    my $client = connect_to($servers);
    commands($client);
    many($client);
    my $versions = $client->server_versions;
    same(scalar @$servers, scalar keys %$versions, 'versions');
    /^1\.6\.\d+$/ || die "version $_\n" for values %$versions;
    my $told = $client->flush_all;
    same(scalar @$servers, scalar(grep { $_ } values %$told), 'flush_all');
    same(undef, $client->get('key'), 'get after a flush');
    $client->disconnect_all;
}

# Two applications use the same servers.
my ($one, $two) = map { connect_to(\@addresses, namespace => "$_:") } qw(one two);
same(1, $one->set('key', 1) && $two->set('key', 2), 'set in namespaces');
same('1 2', join(' ', $one->get('key'), $two->get('key')), 'namespaces');
same('one:key', join(' ', map { $_ . 'key' } $one->namespace), 'a namespace');

$| = 1;
my $client = connect_to(\@addresses);
my $stored = $client->set_multi(map { ["before-$_", 1] } 1 .. 30);
print "restart\n";
<STDIN>;
for my $i (1 .. 30) {
    for (1 .. 100) {
        my $result = $client->set("again-$i", 'x');
        last if ($client->get("again-$i") // '') eq 'x';
    }
    same('x', $client->get("again-$i"), 'get after a restart');
    same(undef, $client->get("before-$i"), 'what was there before a restart');
}
print "ok\n";
