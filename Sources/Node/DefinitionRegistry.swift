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
        /// Of a topic: the version of its data at which the workspace's own fold reads it.
        package let reads: Int
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
                platform: json["platform"]?.bool == true,
                reads: Int(json["reads"]?.int ?? Int64(1 + (body["upcasters"]?.array?.count ?? 0))))
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

    /// Whether a topic is changed by nothing but further upcasters, with what they make of its schema and description: that
    /// takes nothing from who reads it already.
    package func onlyContinues(_ definition: Definition) -> Bool {
        guard definition.kind == TopicDefinition.kind, let known = entries[definition.key],
            let old = try? TopicDefinition(known.definition), let new = try? TopicDefinition(definition),
            new.upcasting.continues(old.upcasting), new.upcasting.version > old.upcasting.version
        else { return false }
        func rest(_ body: JSON) -> [String: JSON] {
            (body.object ?? [:]).filter { !["upcasters", "schema", "description"].contains($0.key) }
        }
        return rest(known.definition.body) == rest(definition.body)
    }

    /// Kinds that nothing is folded by: they may come and change while a history runs.
    static let namingKinds: Set<String> = [Entity.kind, FeatureService.kind]

    /// The events that bring definitions into force; none for those that are already.
    /// - Parameter begun: the workspace's fold has begun: it goes on reading topics at the versions it began with.
    package func events(
        applying definitions: [Definition], platform: Bool, at time: Instant, begun: Bool
    ) -> [NewEvent] {
        definitions.filter { change($0) != .unchanged }.map { definition in
            let version = (entries[definition.key]?.version ?? 0) + 1
            var members: [String: JSON] = [
                "kind": .string(definition.kind), "name": .string(definition.name), "version": .int(version),
                "body": definition.body, "digest": .string(definition.digest.hex), "platform": .bool(platform),
            ]
            if begun, definition.kind == TopicDefinition.kind, let known = entries[definition.key] {
                members["reads"] = .int(Int64(known.reads))
            }
            let data = JSON.object(members)
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
    package let entities: [Entity]
    package let views: [FeatureView]
    package let services: [FeatureService]
    package let questions: [Question]
    package let definitions: [Definition]
    /// The streams that are in force beside it.
    package var folds = FoldGraph()
    /// Versions of topics' data at which its own fold reads them, by topic; of a topic that is not named, the newest.
    package var reads: [String: Int] = [:]

    /// What the fold reads of topics that have had more than one version.
    var readings: [String: TopicReading] {
        var readings: [String: TopicReading] = [:]
        for (topic, _) in topics where topic.upcasting.version > 1 {
            readings[topic.name] = TopicReading(
                topic.upcasting, version: reads[topic.name] ?? topic.upcasting.version)
        }
        return readings
    }

    /// Topics with a lateness.
    var sorted: Set<String> { Set(topics.filter { $0.definition.lateness > 0 }.map(\.definition.name)) }

    package func definitions(_ kind: String) -> [Definition] { definitions.filter { $0.kind == kind } }
}
