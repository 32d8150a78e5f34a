import EventLog

/// The sink of a fold whose state alone is wanted.
package final class DiscardingSink: DerivedSink {
    package init() {}
    package func take(_ event: DerivedEvent) {}
    package func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
    package func flush(_ consumed: () -> [TopicPartition: Int64]) {}
}
