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
    /// The version of its topic's data that an event is of; 1 where it says nothing.
    package static let dataVersion = "ce_dataversion"
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
///
/// One reference: an event is handed on many times before it is written, and each of its attributes would be counted each
/// time.
package struct NewEvent: Sendable {
    private final class Attributes: Sendable {
        let id: String
        let source: String
        let type: String
        let time: Instant
        let key: [UInt8]?
        let subject: String?
        let contentType: String?
        let data: [UInt8]?
        let causation: String?
        let correlation: String?
        let extensions: [(name: String, value: String)]

        init(
            id: String, source: String, type: String, time: Instant, key: [UInt8]?, subject: String?,
            contentType: String?, data: [UInt8]?, causation: String?, correlation: String?,
            extensions: [(name: String, value: String)]
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

    private let attributes: Attributes

    package var id: String { attributes.id }
    package var source: String { attributes.source }
    package var type: String { attributes.type }
    /// Event time; it becomes the record's timestamp.
    package var time: Instant { attributes.time }
    package var key: [UInt8]? { attributes.key }
    package var subject: String? { attributes.subject }
    package var contentType: String? { attributes.contentType }
    package var data: [UInt8]? { attributes.data }
    package var causation: String? { attributes.causation }
    package var correlation: String? { attributes.correlation }
    /// Further attributes, in the order in which they are written.
    package var extensions: [(name: String, value: String)] { attributes.extensions }

    package init(
        id: String, source: String, type: String, time: Instant, key: [UInt8]? = nil, subject: String? = nil,
        contentType: String? = "application/json", data: [UInt8]?, causation: String? = nil,
        correlation: String? = nil, extensions: [(name: String, value: String)] = []
    ) {
        attributes = Attributes(
            id: id, source: source, type: type, time: time, key: key, subject: subject, contentType: contentType,
            data: data, causation: causation, correlation: correlation, extensions: extensions)
    }

    /// The same under another key.
    package func keyed(_ key: [UInt8]) -> NewEvent {
        NewEvent(
            id: id, source: source, type: type, time: time, key: key, subject: subject, contentType: contentType,
            data: data, causation: causation, correlation: correlation, extensions: extensions)
    }

    /// The same with one attribute more, and with other data where there are some.
    package func with(_ name: String, _ value: String, data: [UInt8]? = nil) -> NewEvent {
        NewEvent(
            id: id, source: source, type: type, time: time, key: key, subject: subject, contentType: contentType,
            data: data ?? self.data, causation: causation, correlation: correlation,
            extensions: extensions + [(name, value)])
    }
}
