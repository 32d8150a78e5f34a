import Base

/// How long events of a topic are kept.
package struct Retention: Sendable, Equatable {
    /// Milliseconds since an event was recorded; nil keeps it for good.
    package var milliseconds: Int64?
    /// Bytes of one partition as stored; nil for no bound.
    package var bytes: Int64?

    package init(milliseconds: Int64? = nil, bytes: Int64? = nil) {
        self.milliseconds = milliseconds
        self.bytes = bytes
    }

    package static let forever = Retention()
}

/// How long a repeated event id is recognised.
package enum Deduplication: Sendable, Equatable {
    case never
    /// At least for so many milliseconds since it was recorded.
    case milliseconds(Int64)
    case forever
}

/// A topic as the log knows it.
package struct TopicLayout: Sendable, Equatable {
    package let name: String
    package let partitions: Int
    package var retention: Retention
    /// Of records with the same key only the newest stays.
    package var isCompacted: Bool
    /// How long a tombstone stays readable after the first compaction that met it, in milliseconds.
    package var tombstoneRetention: Int64
    package var deduplication: Deduplication

    package init(
        name: String, partitions: Int, retention: Retention = .forever, isCompacted: Bool = false,
        tombstoneRetention: Int64 = 24 * 3600 * 1000, deduplication: Deduplication = .forever
    ) {
        self.name = name
        self.partitions = partitions
        self.retention = retention
        self.isCompacted = isCompacted
        self.tombstoneRetention = tombstoneRetention
        self.deduplication = deduplication
    }
}
