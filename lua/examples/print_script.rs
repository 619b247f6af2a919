//! Prints the assembled script, as the server loads it. For debugging with redis-cli. Reads nothing.

fn main() {
    print!("{}", inventory_sentinel_script::script::script_source());
}
