import Base
import Catalog
import EventLog
import Features
import Foundation
import RecordFormat

/// The definitions that are in force, folded from the log.
package struct DefinitionRegistry: Sendable {
    package static let topic = "headrace.definitions"

    package struct Entry: Sendable {
        package let definition: Definition
        package let version: Int64
        package let position: String
        package let platform: Bool
    }

    package private(set) var entries: [String: Entry] = [:]

    package init() {}

    package init(log: any EventLog) throws {
        try log.forEachEvent(TopicPartition(Self.topic, 0), passesDoubt: true) { event in
            guard let data = event.data, let json = try? JSON(parsing: data), let kind = json["kind"]?.string,
                let name = json["name"]?.string, let body = json["body"], let version = json["version"]?.int
            else { return true }
            let definition = Definition(kind: kind, name: name, body: body)
            entries[definition.key] = Entry(
                definition: definition, version: version, position: "\(Self.topic)/0@\(event.offset)",
                platform: json["platform"]?.bool == true)
            return true
        }
    }

    package func all(_ kind: String) -> [Entry] {
        entries.values.filter { $0.definition.kind == kind }.sorted { $0.definition.name < $1.definition.name }
    }

    /// What applying would do to one definition.
    package enum Change: String, Sendable { case create, unchanged, change }

    package func change(_ definition: Definition) -> Change {
        guard let known = entries[definition.key] else { return .create }
        return known.definition.body == definition.body ? .unchanged : .change
    }

    /// The events that bring definitions into force; none for those that are already.
    package func events(applying definitions: [Definition], platform: Bool, at time: Instant) -> [NewEvent] {
        definitions.filter { change($0) != .unchanged }.map { definition in
            let version = (entries[definition.key]?.version ?? 0) + 1
            let data = JSON.object([
                "kind": .string(definition.kind), "name": .string(definition.name), "version": .int(version),
                "body": definition.body, "digest": .string(definition.digest.hex), "platform": .bool(platform),
            ])
            return NewEvent(
                id: "\(definition.key)@\(version)", source: "headrace:/definitions", type: "definition.applied",
                time: time,
                key: [UInt8](definition.key.utf8), data: data.canonical)
        }
    }
}

/// The definitions compiled into what the node runs.
package struct CompiledWorkspace {
    package let topics: [(definition: TopicDefinition, platform: Bool)]
    package let views: [FeatureView]
    package let questions: [Question]
    package let definitions: [Definition]
    /// The streams that are in force beside it.
    package var folds = FoldGraph()

    package func definitions(_ kind: String) -> [Definition] { definitions.filter { $0.kind == kind } }
}
