import Base

/// Reads the body of a definition strictly: a missing, misspelt or mistyped key is an error that names its place.
package struct DefinitionReader {
    private let members: [String: JSON]
    private var used: Set<String> = []
    private let definition: Definition
    /// What is read of the definition, for messages: `aggregates, item 2`; empty for the whole.
    private let part: String
    /// The same as the beginning of a path in the definition's lines.
    private let path: String

    package init(_ definition: Definition) throws(CatalogError) {
        try self.init(definition.body, of: definition, part: "", path: "")
    }

    private init(_ body: JSON, of definition: Definition, part: String, path: String) throws(CatalogError) {
        guard case .object(let members) = body else {
            let place = DefinitionReader.place(definition, part, String(path.dropLast()))
            throw CatalogError("bad-definition", "\(place): a mapping is expected")
        }
        self.members = members
        self.definition = definition
        self.part = part
        self.path = path
    }

    /// File, line and what stands there.
    private static func place(_ definition: Definition, _ part: String, _ path: String) -> String {
        let thing = definition.key + (part.isEmpty ? "" : ", \(part)")
        guard !definition.place.isEmpty else { return thing }
        guard let line = definition.lines[path], let colon = definition.place.lastIndex(of: ":") else {
            return "\(definition.place): \(thing)"
        }
        return "\(definition.place[..<colon]):\(line): \(thing)"
    }

    /// - Parameter key: what is wrong, where it is one key: the message names its line.
    package func failure(_ message: String, at key: String? = nil, code: String = "bad-definition") -> CatalogError {
        let whole = path + (key ?? "")
        let known = definition.lines[whole] != nil ? whole : String(path.dropLast())
        return CatalogError(code, "\(DefinitionReader.place(definition, part, known)): \(message)")
    }

    /// A key that was not asked for and is spelt almost so is named.
    package func missing(_ key: String, _ more: String = "") -> CatalogError {
        let near = members.keys.filter { !used.contains($0) && DefinitionReader.isNear($0, key) }.sorted().first
        return failure("'\(key)' is missing\(more)" + (near.map { "; is '\($0)' meant for it?" } ?? ""), at: near)
    }

    /// At most two letters differ (the distance of Levenshtein).
    private static func isNear(_ left: String, _ right: String) -> Bool {
        let (left, right) = (Array(left.utf8), Array(right.utf8))
        guard abs(left.count - right.count) <= 2, !left.isEmpty else { return false }
        var row = Array(0...right.count)
        for (i, letter) in left.enumerated() {
            var corner = i
            row[0] = i + 1
            for (j, other) in right.enumerated() {
                (corner, row[j + 1]) = (row[j + 1], min(corner + (letter == other ? 0 : 1), row[j] + 1, row[j + 1] + 1))
            }
        }
        return row[right.count] <= 2
    }

    package mutating func value(_ key: String) -> JSON? {
        used.insert(key)
        guard let value = members[key], value != .null else { return nil }
        return value
    }

    package mutating func optionalString(_ key: String) throws(CatalogError) -> String? {
        guard let value = value(key) else { return nil }
        switch value {
        case .string(let text): return text
        case .int(let number): return String(number)
        case .bool(let flag): return flag ? "true" : "false"
        default: throw failure("'\(key)' must be text", at: key)
        }
    }

    package mutating func string(_ key: String) throws(CatalogError) -> String {
        guard let text = try optionalString(key), !text.isEmpty else { throw missing(key) }
        return text
    }

    package mutating func optionalInt(_ key: String) throws(CatalogError) -> Int? {
        guard let value = value(key) else { return nil }
        guard let number = value.int else { throw failure("'\(key)' must be a whole number", at: key) }
        return Int(number)
    }

    package mutating func int(_ key: String, _ range: ClosedRange<Int>) throws(CatalogError) -> Int {
        guard let number = try optionalInt(key) else { throw missing(key) }
        guard range.contains(number) else { throw failure("'\(key)' must lie in \(range)", at: key) }
        return number
    }

    package mutating func optionalDouble(_ key: String) throws(CatalogError) -> Double? {
        guard let value = value(key) else { return nil }
        guard let number = value.double else { throw failure("'\(key)' must be a number", at: key) }
        return number
    }

    /// A span such as `3h`, in milliseconds.
    /// 'name', as it can stand in topics, questions, columns and addresses.
    package mutating func legalName() throws(CatalogError) -> String {
        let name = try string("name")
        guard TopicName.isLegal(name) else { throw badName(name, at: "name") }
        return name
    }

    package func badName(_ name: String, at key: String) -> CatalogError {
        failure(
            "'\(name)' is no name: letters, digits, '.', '_' and '-', up to \(Limits.nameLength) of them", at: key,
            code: "bad-name")
    }

    package mutating func optionalSpan(_ key: String) throws(CatalogError) -> Int64? {
        guard let text = try optionalString(key) else { return nil }
        guard let span = parseSpan(text), span > 0 else {
            throw failure("'\(key)' must be a span such as 90s, 15m, 3h or 30d, not '\(text)'", at: key)
        }
        return span
    }

    package mutating func span(_ key: String) throws(CatalogError) -> Int64 {
        guard let span = try optionalSpan(key) else { throw missing(key) }
        return span
    }

    package mutating func list(_ key: String) throws(CatalogError) -> [JSON] {
        guard let value = value(key) else { return [] }
        guard let items = value.array else { throw failure("'\(key)' must be a list", at: key) }
        return items
    }

    /// A list of texts.
    package mutating func texts(_ key: String) throws(CatalogError) -> [String] {
        try list(key).map { (item) throws(CatalogError) in
            guard let text = item.string, !text.isEmpty else { throw failure("'\(key)' is a list of texts", at: key) }
            return text
        }
    }

    package mutating func readers(_ key: String) throws(CatalogError) -> [DefinitionReader] {
        var result: [DefinitionReader] = []
        for (index, item) in try list(key).enumerated() {
            let part = (self.part.isEmpty ? "" : "\(self.part), ") + "\(key), item \(index + 1)"
            result.append(
                try DefinitionReader(item, of: definition, part: part, path: "\(path)\(key)/\(index)/"))
        }
        return result
    }

    package mutating func reader(_ key: String) throws(CatalogError) -> DefinitionReader? {
        guard let value = value(key) else { return nil }
        let part = (self.part.isEmpty ? "" : "\(self.part), ") + key
        return try DefinitionReader(value, of: definition, part: part, path: "\(path)\(key)/")
    }

    package mutating func expression(_ key: String, variables: [String] = []) throws(CatalogError) -> CELProgram? {
        guard let source = try optionalString(key) else { return nil }
        do {
            return try CELProgram(source, variables: variables)
        } catch {
            throw failure("'\(key)': \(error.message)", at: key, code: "bad-expression")
        }
    }

    package mutating func requiredExpression(_ key: String) throws(CatalogError) -> CELProgram {
        guard let program = try expression(key) else { throw missing(key, "; it is a CEL expression") }
        return program
    }

    /// Refuses keys that nobody asked for.
    package func finish() throws(CatalogError) {
        let unknown = members.keys.filter { !used.contains($0) }.sorted()
        guard unknown.isEmpty else {
            let named = unknown.map { "'\($0)'" }.joined(separator: ", ")
            throw failure(
                "unknown \(unknown.count == 1 ? "key" : "keys") \(named); known here are \(used.sorted().joined(separator: ", "))",
                at: unknown.min { (definition.lines[path + $0] ?? 0) < (definition.lines[path + $1] ?? 0) })
        }
    }
}
