import Base
import Foundation
import Yams

package enum CatalogModule {}
/// Errors of definitions and schemas. A message of a definition names file and line.
package typealias CatalogError = Failure<CatalogModule>

/// A declared thing: what kind, under which name, and its body as canonical JSON.
package struct Definition: Sendable, Equatable {
    package let kind: String
    package let name: String
    package let body: JSON
    /// Where it was read, for messages; empty for one that came from the log.
    package let place: String

    package init(kind: String, name: String, body: JSON, place: String = "") {
        self.kind = kind
        self.name = name
        self.body = body
        self.place = place
    }

    package var key: String { "\(kind)/\(name)" }
    package var digest: Digest { Digest.of(body.canonical) }

    package static func == (left: Definition, right: Definition) -> Bool {
        left.kind == right.kind && left.name == right.name && left.body == right.body
    }
}

/// Reads a folder of YAML definitions, several to a file where that reads well.
package enum Workspace {
    /// Definitions of one workspace.
    package static let limit = 10_000

    package static func read(directory: String) throws(CatalogError) -> [Definition] {
        guard FileManager.default.fileExists(atPath: directory),
            let names = FileManager.default.enumerator(atPath: directory)?.compactMap({ $0 as? String })
        else {
            throw CatalogError("no-workspace", "there is no folder '\(directory)'; name a folder of YAML definitions")
        }
        var result: [Definition] = []
        var places: [String: String] = [:]
        for name in names.sorted() where name.hasSuffix(".yaml") || name.hasSuffix(".yml") {
            guard let data = FileManager.default.contents(atPath: directory + "/" + name) else {
                throw CatalogError("no-workspace", "the file '\(directory)/\(name)' cannot be read", fault: .world)
            }
            for definition in try parse(String(decoding: data, as: UTF8.self), file: name) {
                if let other = places[definition.key] {
                    throw CatalogError(
                        "duplicate-definition",
                        "\(definition.place): \(definition.key) is already defined at \(other); keep one")
                }
                places[definition.key] = definition.place
                result.append(definition)
            }
            guard result.count <= limit else {
                throw CatalogError("workspace-too-large", "a workspace may hold \(limit) definitions")
            }
        }
        guard !result.isEmpty else {
            throw CatalogError("no-workspace", "the folder '\(directory)' holds no YAML definition")
        }
        return result
    }

    package static func parse(_ text: String, file: String) throws(CatalogError) -> [Definition] {
        var result: [Definition] = []
        do {
            var nodes = try Yams.compose_all(yaml: text)
            while let node = nodes.next() {
                let line = node.mark?.line ?? 1
                let place = "\(file):\(line)"
                guard case .object(var body) = try json(node, file: file) else {
                    throw CatalogError("bad-definition", "\(place): a definition is a mapping with 'kind' and 'name'")
                }
                guard let kind = body.removeValue(forKey: "kind")?.string, let name = body["name"]?.string else {
                    throw CatalogError("bad-definition", "\(place): 'kind' or 'name' is missing")
                }
                result.append(Definition(kind: kind, name: name, body: .object(body), place: place))
            }
            // The sequence ends at a mistake and keeps it.
            if let error = nodes.error { throw error }
        } catch let error as CatalogError {
            throw error
        } catch {
            throw CatalogError("bad-yaml", "\(file): this is not YAML", cause: error)
        }
        return result
    }

    private static func json(_ node: Node, file: String) throws -> JSON {
        switch node {
        case .scalar(let scalar):
            if scalar.style != .singleQuoted, scalar.style != .doubleQuoted {
                if node.null != nil { return .null }
                if let value = node.bool, ["true", "false"].contains(scalar.string) { return .bool(value) }
                if let value = node.int { return .int(Int64(value)) }
                if let value = node.float, scalar.string.contains(where: \.isNumber) { return .double(value) }
            }
            return .string(scalar.string)
        case .sequence(let items): return .array(try items.map { try json($0, file: file) })
        case .mapping(let pairs):
            var members: [String: JSON] = [:]
            for (key, value) in pairs {
                guard let name = key.string else {
                    throw CatalogError("bad-definition", "\(file):\(key.mark?.line ?? 1): a key is no text")
                }
                guard members[name] == nil else {
                    throw CatalogError(
                        "bad-definition", "\(file):\(key.mark?.line ?? 1): the key '\(name)' stands twice")
                }
                members[name] = try json(value, file: file)
            }
            return .object(members)
        case .alias: throw CatalogError("bad-definition", "\(file): YAML aliases are not taken")
        }
    }
}

/// Reads the body of a definition strictly: a missing, misspelt or mistyped key is an error that names its place.
package struct DefinitionReader {
    private let members: [String: JSON]
    private var used: Set<String> = []
    package let path: String

    package init(_ definition: Definition) throws(CatalogError) {
        let place = definition.place.isEmpty ? definition.key : "\(definition.place): \(definition.key)"
        try self.init(definition.body, path: place)
    }

    package init(_ body: JSON, path: String) throws(CatalogError) {
        guard case .object(let members) = body else {
            throw CatalogError("bad-definition", "\(path): a mapping is expected")
        }
        self.members = members
        self.path = path
    }

    package func failure(_ message: String) -> CatalogError { CatalogError("bad-definition", "\(path): \(message)") }

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
        default: throw failure("'\(key)' must be text")
        }
    }

    package mutating func string(_ key: String) throws(CatalogError) -> String {
        guard let text = try optionalString(key), !text.isEmpty else { throw failure("'\(key)' is missing") }
        return text
    }

    package mutating func optionalInt(_ key: String) throws(CatalogError) -> Int? {
        guard let value = value(key) else { return nil }
        guard let number = value.int else { throw failure("'\(key)' must be a whole number") }
        return Int(number)
    }

    package mutating func int(_ key: String, _ range: ClosedRange<Int>) throws(CatalogError) -> Int {
        guard let number = try optionalInt(key) else { throw failure("'\(key)' is missing") }
        guard range.contains(number) else { throw failure("'\(key)' must lie in \(range)") }
        return number
    }

    package mutating func optionalDouble(_ key: String) throws(CatalogError) -> Double? {
        guard let value = value(key) else { return nil }
        guard let number = value.double else { throw failure("'\(key)' must be a number") }
        return number
    }

    /// A span such as `3h`, in milliseconds.
    package mutating func optionalSpan(_ key: String) throws(CatalogError) -> Int64? {
        guard let text = try optionalString(key) else { return nil }
        guard let span = parseSpan(text), span > 0 else {
            throw failure("'\(key)' must be a span such as 90s, 15m, 3h or 30d")
        }
        return span
    }

    package mutating func span(_ key: String) throws(CatalogError) -> Int64 {
        guard let span = try optionalSpan(key) else { throw failure("'\(key)' is missing") }
        return span
    }

    package mutating func list(_ key: String) throws(CatalogError) -> [JSON] {
        guard let value = value(key) else { return [] }
        guard let items = value.array else { throw failure("'\(key)' must be a list") }
        return items
    }

    package mutating func readers(_ key: String) throws(CatalogError) -> [DefinitionReader] {
        var result: [DefinitionReader] = []
        for (index, item) in try list(key).enumerated() {
            result.append(try DefinitionReader(item, path: "\(path), \(key)[\(index)]"))
        }
        return result
    }

    package mutating func reader(_ key: String) throws(CatalogError) -> DefinitionReader? {
        guard let value = value(key) else { return nil }
        return try DefinitionReader(value, path: "\(path), \(key)")
    }

    package mutating func expression(_ key: String, variables: [String] = []) throws(CatalogError) -> CELProgram? {
        guard let source = try optionalString(key) else { return nil }
        do {
            return try CELProgram(source, variables: variables)
        } catch {
            throw CatalogError("bad-expression", "\(path): '\(key)': \(error.message)")
        }
    }

    package mutating func requiredExpression(_ key: String) throws(CatalogError) -> CELProgram {
        guard let program = try expression(key) else { throw failure("'\(key)' is missing; it is a CEL expression") }
        return program
    }

    /// Refuses keys that nobody asked for.
    package func finish() throws(CatalogError) {
        let unknown = members.keys.filter { !used.contains($0) }.sorted()
        guard unknown.isEmpty else {
            throw failure(
                "unknown keys \(unknown.joined(separator: ", ")); known here are \(used.sorted().joined(separator: ", "))"
            )
        }
    }
}
