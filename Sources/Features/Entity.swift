import Base
import Catalog

/// A declared entity: what features are about, and under which name its key is given when they are asked for.
package final class Entity: Sendable {
    package static let kind = "Entity"

    package let name: String
    /// The name that requests and label events give the key under.
    package let joinKey: String
    package let description: String
    package let owner: String
    package let tags: [String]

    package init(_ definition: Definition) throws(CatalogError) {
        var reader = try DefinitionReader(definition)
        name = try reader.legalName()
        joinKey = try reader.optionalString("joinKey") ?? name
        description = try reader.optionalString("description") ?? ""
        owner = try reader.optionalString("owner") ?? ""
        tags = try reader.texts("tags")
        try reader.finish()
    }
}
