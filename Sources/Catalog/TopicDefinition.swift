import Base

/// A topic as declared: its layout, default event type, schema and retention.
package struct TopicDefinition: Sendable {
    package let name: String
    package let partitions: Int
    /// Type of records that carry no `ce_` headers.
    package let defaultType: String?
    package let compacted: Bool
    package let description: String
    package let schema: JSONSchema?

    package static let kind = "Topic"

    package init(_ definition: Definition) throws(CatalogError) {
        var reader = try DefinitionReader(definition)
        name = try reader.string("name")
        partitions = try reader.optionalInt("partitions") ?? 1
        defaultType = try reader.optionalString("defaultType")
        description = try reader.optionalString("description") ?? ""
        let cleanup = try reader.optionalString("cleanup") ?? "none"
        guard ["none", "compact"].contains(cleanup) else { throw reader.failure("'cleanup' is none or compact") }
        compacted = cleanup == "compact"
        if let body = reader.value("schema") {
            do {
                schema = try JSONSchema(body)
            } catch {
                throw CatalogError("bad-schema", "\(reader.path), schema: \(error.message)")
            }
        } else {
            schema = nil
        }
        try reader.finish()
        guard TopicName.isLegal(name) else {
            throw reader.failure(
                "'\(name)' is no topic name: letters, digits, '.', '_' and '-', at most \(Limits.nameLength)")
        }
        guard TopicName.partitions.contains(partitions) else {
            throw reader.failure("'partitions' must lie in \(TopicName.partitions)")
        }
    }
}
