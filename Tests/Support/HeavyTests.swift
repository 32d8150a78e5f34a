import Testing

/// Suites that start nodes and brokers: one after the other, since what they time and wait for needs the machine.
@Suite(.serialized) enum HeavyTests {}
