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
    /// Where it was read, for messages: file and line. Empty for one that came from the log.
    package let place: String
    /// Lines of its keys and list items, by their path (`aggregates/0/name`). Empty for one that came from the log.
    package let lines: [String: Int]

    package init(kind: String, name: String, body: JSON, place: String = "", lines: [String: Int] = [:]) {
        self.kind = kind
        self.name = name
        self.body = body
        self.place = place
        self.lines = lines
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
                var lines: [String: Int] = [:]
                guard case .object(var body) = try json(node, file, "", &lines) else {
                    throw CatalogError("bad-definition", "\(place): a definition is a mapping with 'kind' and 'name'")
                }
                guard let kind = body.removeValue(forKey: "kind")?.string, let name = body["name"]?.string else {
                    throw CatalogError("bad-definition", "\(place): 'kind' or 'name' is missing")
                }
                result.append(Definition(kind: kind, name: name, body: .object(body), place: place, lines: lines))
            }
            // The sequence ends at a mistake and keeps it.
            if let error = nodes.error { throw error }
        } catch let error as CatalogError {
            throw error
        } catch {
            var (place, reason) = (file, "\(error)")
            if case .scanner(_, let problem, let mark, _)? = error as? YamlError {
                (place, reason) = ("\(file):\(mark.line)", problem)
            } else if case .parser(_, let problem, let mark, _)? = error as? YamlError {
                (place, reason) = ("\(file):\(mark.line)", problem)
            } else if case .composer(_, let problem, let mark, _)? = error as? YamlError {
                (place, reason) = ("\(file):\(mark.line)", problem)
            }
            throw CatalogError(
                "bad-yaml",
                "\(place): this is not YAML: \(reason) (an expression with ': ', '?', '{' or '#' stands in quotes)")
        }
        return result
    }

    /// - Parameter lines: gets the line of every key and item, by path.
    private static func json(
        _ node: Node, _ file: String, _ path: String, _ lines: inout [String: Int]
    ) throws -> JSON {
        switch node {
        case .scalar(let scalar):
            if scalar.style != .singleQuoted, scalar.style != .doubleQuoted {
                if node.null != nil { return .null }
                if let value = node.bool, ["true", "false"].contains(scalar.string) { return .bool(value) }
                if let value = node.int { return .int(Int64(value)) }
                if let value = node.float, scalar.string.contains(where: \.isNumber) { return .double(value) }
            }
            return .string(scalar.string)
        case .sequence(let items):
            var list: [JSON] = []
            for (index, item) in items.enumerated() {
                lines["\(path)\(index)"] = item.mark?.line
                list.append(try json(item, file, "\(path)\(index)/", &lines))
            }
            return .array(list)
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
                lines[path + name] = key.mark?.line
                members[name] = try json(value, file, "\(path)\(name)/", &lines)
            }
            return .object(members)
        case .alias: throw CatalogError("bad-definition", "\(file): YAML aliases are not taken")
        }
    }
}
