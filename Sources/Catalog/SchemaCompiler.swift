import Base
import Foundation

/// Turns schema JSON into rules, refusing what it does not know.
struct SchemaCompiler {
    let document: JSON
    var compiled: [String: SchemaNode] = [:]
    var pending: ArraySlice<String> = []

    init(document: JSON) { self.document = document }

    private static let known: Set<String> = [
        "type", "const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
        "minLength",
        "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "items", "prefixItems", "contains",
        "minContains",
        "maxContains", "minProperties", "maxProperties", "required", "properties", "patternProperties",
        "additionalProperties", "propertyNames", "dependentRequired", "dependentSchemas", "allOf", "anyOf", "oneOf",
        "not",
        "if", "then", "else", "$ref",
    ]

    mutating func compile(_ schema: JSON, _ at: String) throws(CatalogError) -> SchemaNode {
        if let flag = schema.bool { return .always(flag) }
        guard let members = schema.object else { throw failure(at, "a schema is a mapping, true or false") }
        for key in members.keys.sorted()
        where !SchemaCompiler.known.contains(key) && !JSONSchema.annotations.contains(key) {
            throw CatalogError(
                "unsupported-keyword",
                "\(at): the keyword '\(key)' is not supported; leave it out or express it otherwise")
        }
        var rules: [SchemaRule] = []
        try scalars(members, at, &rules)
        try arrays(members, at, &rules)
        try objects(members, at, &rules)
        try combinations(members, at, &rules)
        return .rules(SchemaObject(rules))
    }

    private func failure(_ at: String, _ message: String) -> CatalogError {
        CatalogError("bad-schema", "\(at): \(message)")
    }

    private func number(_ members: [String: JSON], _ key: String, _ at: String) throws(CatalogError) -> Double? {
        guard let value = members[key] else { return nil }
        guard let number = value.double else { throw failure(at, "'\(key)' must be a number") }
        return number
    }

    private func count(_ members: [String: JSON], _ key: String, _ at: String) throws(CatalogError) -> Int? {
        guard let value = members[key] else { return nil }
        guard let number = value.int, number >= 0 else { throw failure(at, "'\(key)' must be a count") }
        return Int(number)
    }

    private func scalars(_ members: [String: JSON], _ at: String, _ rules: inout [SchemaRule]) throws(CatalogError) {
        if let type = members["type"] {
            var types: SchemaTypes = []
            for name in type.array ?? [type] {
                guard let found = SchemaTypes.names.first(where: { $0.0 == name.string }) else {
                    throw failure(at, "'type' names no type: \(name.text)")
                }
                types.insert(found.1)
            }
            rules.append(.types(types))
        }
        if let value = members["const"] { rules.append(.constant(value)) }
        if let values = members["enum"] {
            guard let list = values.array else { throw failure(at, "'enum' must be a list") }
            rules.append(.oneOfValues(list))
        }
        if let value = try number(members, "minimum", at) { rules.append(.minimum(value)) }
        if let value = try number(members, "maximum", at) { rules.append(.maximum(value)) }
        if let value = try number(members, "exclusiveMinimum", at) { rules.append(.exclusiveMinimum(value)) }
        if let value = try number(members, "exclusiveMaximum", at) { rules.append(.exclusiveMaximum(value)) }
        if let value = try number(members, "multipleOf", at) {
            guard value > 0 else { throw failure(at, "'multipleOf' must be above 0") }
            rules.append(.multipleOf(value))
        }
        if let value = try count(members, "minLength", at) { rules.append(.minLength(value)) }
        if let value = try count(members, "maxLength", at) { rules.append(.maxLength(value)) }
        if let value = members["pattern"] {
            guard let text = value.string else { throw failure(at, "'pattern' must be text") }
            rules.append(.pattern(try SchemaPattern(text)))
        }
    }

    private mutating func arrays(_ members: [String: JSON], _ at: String, _ rules: inout [SchemaRule])
        throws(CatalogError)
    {
        if let value = try count(members, "minItems", at) { rules.append(.minItems(value)) }
        if let value = try count(members, "maxItems", at) { rules.append(.maxItems(value)) }
        if members["uniqueItems"]?.bool == true { rules.append(.uniqueItems) }
        let prefix = try schemas(members, "prefixItems", at)
        if let prefix { rules.append(.prefixItems(prefix)) }
        if let items = members["items"] {
            rules.append(.items(try compile(items, at + "/items"), after: prefix?.count ?? 0))
        }
        if let contains = members["contains"] {
            let least = try count(members, "minContains", at) ?? 1
            let most = try count(members, "maxContains", at)
            rules.append(.contains(try compile(contains, at + "/contains"), least: least, most: most))
        }
    }

    private mutating func objects(_ members: [String: JSON], _ at: String, _ rules: inout [SchemaRule])
        throws(CatalogError)
    {
        if let value = try count(members, "minProperties", at) { rules.append(.minProperties(value)) }
        if let value = try count(members, "maxProperties", at) { rules.append(.maxProperties(value)) }
        if let value = members["required"] { rules.append(.required(try names(value, at, "required"))) }
        let properties = try map(members, "properties", at)
        if !properties.isEmpty { rules.append(.properties(properties.map { (JSONKey($0.0), $0.1) })) }
        var patterns: [(SchemaPattern, SchemaNode)] = []
        for (key, node) in try map(members, "patternProperties", at) { patterns.append((try SchemaPattern(key), node)) }
        if !patterns.isEmpty { rules.append(.patternProperties(patterns)) }
        if let value = members["additionalProperties"] {
            let node = try compile(value, at + "/additionalProperties")
            rules.append(.additional(node, known: Set(properties.map(\.0)), patterns: patterns.map(\.0)))
        }
        if let value = members["propertyNames"] {
            rules.append(.propertyNames(try compile(value, at + "/propertyNames")))
        }
        if let value = members["dependentRequired"]?.object {
            var list: [(JSONKey, [JSONKey])] = []
            for (key, wanted) in JSON.sorted(value) {
                list.append((JSONKey(key), try names(wanted, at, "dependentRequired")))
            }
            rules.append(.dependentRequired(list))
        }
        let dependent = try map(members, "dependentSchemas", at)
        if !dependent.isEmpty { rules.append(.dependentSchemas(dependent.map { (JSONKey($0.0), $0.1) })) }
    }

    private mutating func combinations(
        _ members: [String: JSON], _ at: String, _ rules: inout [SchemaRule]
    ) throws(CatalogError) {
        if let list = try schemas(members, "allOf", at) { rules.append(.allOf(list)) }
        if let list = try schemas(members, "anyOf", at) { rules.append(.anyOf(list)) }
        if let list = try schemas(members, "oneOf", at) { rules.append(.oneOf(list)) }
        if let value = members["not"] { rules.append(.not(try compile(value, at + "/not"))) }
        if let value = members["if"] {
            var then: SchemaNode?
            var otherwise: SchemaNode?
            if let branch = members["then"] { then = try compile(branch, at + "/then") }
            if let branch = members["else"] { otherwise = try compile(branch, at + "/else") }
            rules.append(.conditional(try compile(value, at + "/if"), then: then, otherwise: otherwise))
        }
        if let value = members["$ref"] {
            guard let pointer = value.string, pointer == "#" || pointer.hasPrefix("#/") else {
                throw CatalogError(
                    "unsupported-keyword",
                    "\(at): '$ref' may only point inside the same schema (#/…), not \(value.text)")
            }
            pending.append(pointer)
            rules.append(.reference(pointer))
        }
    }

    private func names(_ value: JSON, _ at: String, _ key: String) throws(CatalogError) -> [JSONKey] {
        guard let list = value.array, list.allSatisfy({ $0.string != nil }) else {
            throw failure(at, "'\(key)' must be a list of names")
        }
        return list.compactMap(\.string).map { JSONKey($0) }
    }

    private mutating func schemas(_ members: [String: JSON], _ key: String, _ at: String) throws(CatalogError)
        -> [SchemaNode]?
    {
        guard let value = members[key] else { return nil }
        guard let list = value.array else { throw failure(at, "'\(key)' must be a list of schemas") }
        var result: [SchemaNode] = []
        for (index, item) in list.enumerated() { result.append(try compile(item, "\(at)/\(key)/\(index)")) }
        return result
    }

    private mutating func map(_ members: [String: JSON], _ key: String, _ at: String) throws(CatalogError) -> [(
        String, SchemaNode
    )] {
        guard let value = members[key] else { return [] }
        guard let object = value.object else { throw failure(at, "'\(key)' must be a mapping of schemas") }
        var result: [(String, SchemaNode)] = []
        for (name, schema) in JSON.sorted(object) { result.append((name, try compile(schema, "\(at)/\(key)/\(name)"))) }
        return result
    }

    /// Follows a JSON pointer (RFC 6901) in URI fragment form.
    func resolve(_ pointer: String) throws(CatalogError) -> JSON {
        var node = document
        for part in pointer.dropFirst(2).split(separator: "/", omittingEmptySubsequences: false) where pointer != "#" {
            let name = (part.removingPercentEncoding ?? String(part)).replacingOccurrences(of: "~1", with: "/")
                .replacingOccurrences(of: "~0", with: "~")
            if let next = node[name] {
                node = next
            } else if let list = node.array, let index = Int(name), list.indices.contains(index) {
                node = list[index]
            } else {
                throw failure(pointer, "'$ref' points at nothing")
            }
        }
        return node
    }
}
