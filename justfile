# Shortcuts. Nothing needs them: README.md and CONTRIBUTING.md name the commands themselves.

test:
    ./scripts/setup --tests && cargo nextest run && cargo test --doc

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

example:
    ./scripts/setup && cargo run -q -p mooring-cli -- run --agent examples/fix-the-bug/agent.toml "Make the tests pass."
