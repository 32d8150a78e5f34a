import Base

/// The attribute names under which an event travels (CloudEvents Kafka protocol binding 1.0, binary mode).
package enum EventHeader {
    package static let type = "ce_type"
    package static let id = "ce_id"
    package static let source = "ce_source"
    package static let specVersion = "ce_specversion"
    package static let subject = "ce_subject"
    package static let contentType = "content-type"
    package static let causation = "ce_causationid"
    package static let correlation = "ce_correlationid"
    /// When an imported event became known, where that is not its event time (RFC 3339).
    package static let knownTime = "ce_knowntime"
    /// The key under which personal fields of the data are sealed, in hexadecimal.
    package static let keyID = "ce_keyid"
}

/// Types of events that the platform itself gives a meaning.
package enum EventType {
    /// What a source has written completely: `{"through": RFC 3339}`, with `"state"` active (when absent), idle or finished,
    /// and with `"round"`, a number that grows over all its partitions, where late events may come.
    package static let progress = "source.progress"
}

/// An event on its way into the log: CloudEvents 1.0 with the key that chooses its partition.
package struct NewEvent: Sendable {
    package var id: String
    package var source: String
    package var type: String
    /// Event time; it becomes the record's timestamp.
    package var time: Instant
    package var key: [UInt8]?
    package var subject: String?
    package var contentType: String?
    package var data: [UInt8]?
    package var causation: String?
    package var correlation: String?
    /// Further attributes, in the order in which they are written.
    package var extensions: [(name: String, value: String)]

    package init(
        id: String, source: String, type: String, time: Instant, key: [UInt8]? = nil, subject: String? = nil,
        contentType: String? = "application/json", data: [UInt8]?, causation: String? = nil,
        correlation: String? = nil, extensions: [(name: String, value: String)] = []
    ) {
        self.id = id
        self.source = source
        self.type = type
        self.time = time
        self.key = key
        self.subject = subject
        self.contentType = contentType
        self.data = data
        self.causation = causation
        self.correlation = correlation
        self.extensions = extensions
    }
}
