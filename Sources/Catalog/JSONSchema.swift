import Base

/// A JSON Schema (2020-12) compiled for checking documents on the event path. Keywords outside the supported set are
/// refused when the schema is compiled, never ignored; `format` is an annotation, as the specification has it.
package final class JSONSchema: Sendable {
    private let root: SchemaNode
    private let references: [String: SchemaNode]

    package static let annotations: Set<String> = [
        "$schema", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated",
        "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType", "contentSchema",
    ]

    package init(_ schema: JSON) throws(CatalogError) {
        var compiler = SchemaCompiler(document: schema)
        root = try compiler.compile(schema, "#")
        // References may name schemas that nothing else reaches, and may be recursive.
        while let pointer = compiler.pending.popFirst() {
            guard compiler.compiled[pointer] == nil else { continue }
            let target = try compiler.resolve(pointer)
            compiler.compiled[pointer] = .always(true)
            compiler.compiled[pointer] = try compiler.compile(target, pointer)
        }
        references = compiler.compiled
    }

    /// nil when the document is valid; otherwise what is wrong and where.
    package func check(_ document: JSONDocument, _ node: Int = 0) -> SchemaViolation? {
        var check = SchemaCheck(document: document, references: references)
        return check.run(root, node, 0) ? nil : check.violation ?? SchemaViolation(path: "", message: "is not allowed")
    }
}

/// The first thing a document does wrong.
package struct SchemaViolation: Sendable, CustomStringConvertible {
    package let path: String
    package let message: String
    package var description: String { "\(path.isEmpty ? "the data" : path) \(message)" }
}

/// A compiled schema.
final class SchemaObject: Sendable {
    let rules: [SchemaRule]
    init(_ rules: [SchemaRule]) { self.rules = rules }
}

enum SchemaNode: Sendable {
    case always(Bool)
    case rules(SchemaObject)
}

struct SchemaTypes: OptionSet, Sendable {
    let rawValue: Int
    static let null = SchemaTypes(rawValue: 1)
    static let boolean = SchemaTypes(rawValue: 2)
    static let integer = SchemaTypes(rawValue: 4)
    static let number = SchemaTypes(rawValue: 8)
    static let string = SchemaTypes(rawValue: 16)
    static let array = SchemaTypes(rawValue: 32)
    static let object = SchemaTypes(rawValue: 64)

    static let names: [(String, SchemaTypes)] = [
        ("null", .null), ("boolean", .boolean), ("integer", .integer), ("number", .number), ("string", .string),
        ("array", .array), ("object", .object),
    ]
}

/// A regular expression of a schema. Unchecked because Regex is immutable once built but not declared Sendable; there is
/// no lock to name since nothing changes.
final class SchemaPattern: @unchecked Sendable {
    let source: String
    private let regex: Regex<AnyRegexOutput>

    init(_ source: String) throws(CatalogError) {
        self.source = source
        do {
            regex = try Regex(source).matchingSemantics(.unicodeScalar)
        } catch {
            throw CatalogError("bad-schema", "'\(source)' is no regular expression", cause: error)
        }
    }

    func matches(_ text: String) -> Bool { (try? regex.firstMatch(in: text)) != nil }
}

/// One keyword with what it says.
enum SchemaRule: Sendable {
    case types(SchemaTypes)
    case constant(JSON)
    case oneOfValues([JSON])
    case minimum(Double), maximum(Double), exclusiveMinimum(Double), exclusiveMaximum(Double), multipleOf(Double)
    case minLength(Int), maxLength(Int), pattern(SchemaPattern)
    case minItems(Int), maxItems(Int), uniqueItems
    case items(SchemaNode, after: Int), prefixItems([SchemaNode])
    case contains(SchemaNode, least: Int, most: Int?)
    case minProperties(Int), maxProperties(Int), required([JSONKey])
    case properties([(JSONKey, SchemaNode)])
    case patternProperties([(SchemaPattern, SchemaNode)])
    case additional(SchemaNode, known: Set<String>, patterns: [SchemaPattern])
    case propertyNames(SchemaNode)
    case dependentRequired([(JSONKey, [JSONKey])])
    case dependentSchemas([(JSONKey, SchemaNode)])
    case allOf([SchemaNode]), anyOf([SchemaNode]), oneOf([SchemaNode]), not(SchemaNode)
    case conditional(SchemaNode, then: SchemaNode?, otherwise: SchemaNode?)
    case reference(String)
}
