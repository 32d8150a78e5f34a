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
        let legal = name.utf8.allSatisfy { byte in
            (byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7A) || (byte >= 0x30 && byte <= 0x39)
                || [0x2E, 0x5F, 0x2D].contains(byte)
        }
        guard legal, name.utf8.count <= Limits.nameLength else {
            throw reader.failure(
                "'\(name)' is no topic name: letters, digits, '.', '_' and '-', at most \(Limits.nameLength)")
        }
        guard (1...1024).contains(partitions) else { throw reader.failure("'partitions' must lie in 1...1024") }
    }
}
