# What a driver program did, as the program itself knows it.
#
# Owns the markers in the statements' texts, the lines of the journal, and the text form of values.
package Journal;
use strict;
use warnings;
use Exporter 'import';
use IO::Handle;
use JSON::PP;

our @EXPORT_OK = qw(expect);

sub new {
    my ($class, $name) = @_;
    open my $file, '>>', $ENV{PGW_JOURNAL} or die "$ENV{PGW_JOURNAL}: $!";
    $file->autoflush(1);
    return bless { name => $name, file => $file, numbers => {}, json => JSON::PP->new->utf8 }, $class;
}

sub rounds { return $ENV{PGW_ROUNDS} // 1 }

# Gives each empty comment in a text its marker. Equal texts keep equal numbers, in every round.
sub mark {
    my ($self, $text) = @_;
    my $count  = 0;
    my $marked = $text =~ s{/\*\*/}{
        my $key = $count++ . " $text";
        my $number = $self->{numbers}{$key} //= 1 + keys %{ $self->{numbers} };
        "/* d=$self->{name} j=$number */"
    }ger;
    die "no place for a marker: $text" if !$count;
    return $marked;
}

# One execution of the first marked statement of a text; %claim has what is known: rows, affected, sqlstate,
# copy_bytes, and params (a list of texts as the server prints them, undef is NULL).
sub line {
    my ($self, $marked, $pid, %claim) = @_;
    my ($number) = $marked =~ m{/\* d=\S+ j=(\d+) \*/} or die "no marker: $marked";
    my %line = (d => $self->{name}, j => 0 + $number, pid => 0 + $pid, sqlstate => $claim{sqlstate});
    $line{$_} = defined $claim{$_} ? 0 + $claim{$_} : undef for qw(rows affected copy_bytes);
    $line{params} = [map { defined $_ ? "$_" : undef } @{ $claim{params} }] if $claim{params};
    print { $self->{file} } $self->{json}->encode(\%line), "\n";
    return;
}

sub expect {
    my ($what, $got, $wanted) = @_;
    die "$what: expected $wanted, got " . ($got // 'undef') . "\n" if ($got // 'undef') ne $wanted;
    return;
}

1;
