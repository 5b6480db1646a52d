# Runs a program for which the kernel refuses io_uring_setup with EPERM, as container
# runtimes do: a seccomp filter that this process and its children cannot take off.
#   perl without_io_uring.pl PROGRAM ARGUMENT…
use strict;
use warnings;

my $machine = `uname -m`;
my $PRCTL = $machine =~ /aarch64|riscv64/ ? 167 : 157;
my ($PR_SET_NO_NEW_PRIVS, $PR_SET_SECCOMP, $SECCOMP_MODE_FILTER) = (38, 22, 2);
my $IO_URING_SETUP = 425;    # the same number everywhere

# struct sock_filter { u16 code; u8 jt, jf; u32 k; }
my $filter = join '', map { pack 'SCCL', @$_ } (
    [0x20, 0, 0, 0],                  # load the system call's number
    [0x15, 0, 1, $IO_URING_SETUP],    # is it io_uring_setup?
    [0x06, 0, 0, 0x00050000 | 1],     # then EPERM
    [0x06, 0, 0, 0x7fff0000],         # else allow
);
# struct sock_fprog { u16 len; struct sock_filter *filter; }
my $program = pack 'S x6 P', length($filter) / 8, $filter;

syscall($PRCTL, $PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
syscall($PRCTL, $PR_SET_SECCOMP, $SECCOMP_MODE_FILTER, $program, 0, 0) == 0 or die "seccomp: $!";
exec { $ARGV[0] } @ARGV or die "$ARGV[0]: $!";
