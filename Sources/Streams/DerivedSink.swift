import EventLog

/// Where emitted events go: the log, or a comparison in a replay.
package protocol DerivedSink: AnyObject {
    /// Who says where events will stand; nil where each stands one behind the one before it.
    var places: (any DerivedPlaces)? { get }
    func take(_ event: DerivedEvent) throws
    /// Says how far the fold is; stands behind what was taken before, and nobody counts it.
    func say(_ progress: DerivedEvent) throws
    /// A slice of work is done; good moment to hand events on.
    /// - Parameter consumed: next offsets of the inputs that everything taken so far was made from.
    func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) throws
    /// Returns when everything taken is durable.
    func flush(_ consumed: () -> [TopicPartition: Int64]) throws
}

extension DerivedSink {
    package var places: (any DerivedPlaces)? { nil }
    package func say(_ progress: DerivedEvent) throws {}
}
