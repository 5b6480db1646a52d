//! The command line; everything else is in the library.

/// With glibc's the process kept, for each of its threads, the most that ever lay there at a time:
/// 60 bytes more for a connection, and some more after each rush of them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    corecast::cli::main()
}
