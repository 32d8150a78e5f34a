import Base

/// A topic as declared: its layout, default event type, schema and retention.
package struct TopicDefinition: Sendable {
    package let name: String
    package let partitions: Int
    /// Type of records that carry no `ce_` headers.
    package let defaultType: String?
    /// Of events with the same key only the newest stays.
    package let compacted: Bool
    /// How long events are kept since they were recorded, in milliseconds, and how many bytes of a partition; nil for good.
    package let retentionTime: Int64?
    package let retentionBytes: Int64?
    /// How long a tombstone stays readable once compaction met it, in milliseconds.
    package let tombstoneTime: Int64
    /// How long a repeated event id is recognised, in milliseconds; nil for good, 0 for never.
    package let deduplicationTime: Int64?
    /// How much older than the newest event one may be and still be in time, in milliseconds.
    package let lateness: Int64
    package let description: String
    package let schema: JSONSchema?
    /// What of the data is sealed under its subject's key; nil where nothing is.
    package let personal: PersonalFields?
    /// What earlier versions of its data become.
    package let upcasting: Upcasting

    package static let kind = "Topic"
    /// In milliseconds.
    private static let latenessLimit: Int64 = 30 * 86_400_000

    package init(_ definition: Definition) throws(CatalogError) {
        var reader = try DefinitionReader(definition)
        name = try reader.string("name")
        partitions = try reader.optionalInt("partitions") ?? 1
        defaultType = try reader.optionalString("defaultType")
        description = try reader.optionalString("description") ?? ""
        let cleanup = try reader.optionalString("cleanup") ?? "none"
        guard ["none", "compact"].contains(cleanup) else { throw reader.failure("'cleanup' is none or compact") }
        compacted = cleanup == "compact"
        var retention = try reader.reader("retention")
        retentionTime = try retention?.optionalSpan("time")
        retentionBytes = try retention?.optionalInt("bytes").map { Int64($0) }
        try retention?.finish()
        lateness = try reader.optionalSpan("lateness") ?? 0
        tombstoneTime = try reader.optionalSpan("tombstones") ?? 24 * 3_600_000
        switch try reader.optionalString("deduplicate") ?? "forever" {
        case "forever": deduplicationTime = nil
        case "never": deduplicationTime = 0
        case let text:
            guard let span = parseSpan(text), span > 0 else {
                throw reader.failure("'deduplicate' is forever, never or a span such as 7d")
            }
            deduplicationTime = span
        }
        if let body = reader.value("schema") {
            do {
                schema = try JSONSchema(body)
            } catch {
                throw reader.failure("schema: \(error.message)", at: "schema", code: "bad-schema")
            }
        } else {
            schema = nil
        }
        if var fields = try reader.reader("personal") {
            personal = try PersonalFields(&fields)
        } else {
            personal = nil
        }
        upcasting = try Upcasting(&reader, personal: personal)
        try reader.finish()
        guard (0...Self.latenessLimit).contains(lateness) else {
            throw reader.failure("'lateness' is at most 30d: what waits so long is read twice")
        }
        guard lateness == 0 || !compacted else {
            throw reader.failure("a compacted topic has no 'lateness': what waits for its turn might be compacted away")
        }
        guard retentionTime ?? .max > lateness else {
            throw reader.failure(
                "'retention: time' must be longer than 'lateness': what waits is read again in its turn")
        }
        guard retentionBytes ?? 1 > 0 else { throw reader.failure("'retention: bytes' must be positive") }
        guard TopicName.isLegal(name) else {
            throw reader.failure(
                "'\(name)' is no topic name: letters, digits, '.', '_' and '-', at most \(Limits.nameLength)")
        }
        guard TopicName.partitions.contains(partitions) else {
            throw reader.failure("'partitions' must lie in \(TopicName.partitions)")
        }
    }
}
