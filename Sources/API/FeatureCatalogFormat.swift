import Base
import Features

/// The online store in our own words.
package enum FeatureCatalogFormat {
    /// Views, entities and services of which name, description, owner, a tag or a feature holds the words searched for.
    package static func write(_ catalog: FeatureCatalog, search: String) -> JSON {
        let words = search.lowercased().split(separator: " ")
        func isFound(_ texts: [String]) -> Bool {
            words.allSatisfy { word in texts.contains { $0.lowercased().contains(word) } }
        }
        let views = catalog.views.values.sorted { $0.name < $1.name }.filter {
            isFound([$0.name, $0.description, $0.owner, $0.topic] + $0.tags + $0.aggregates.map(\.name))
        }
        let services = catalog.services.values.sorted { $0.name < $1.name }
        return .object([
            "views": .array(
                views.map { view in
                    .object([
                        "name": .string(view.name), "version": .int(catalog.version(of: view)),
                        "description": .string(view.description), "owner": .string(view.owner),
                        "tags": texts(view.tags),
                        "topic": .string(view.topic), "entity": view.entity.map { .string($0) } ?? .null,
                        "key": .string(catalog.keyName(of: view)),
                        "latenessSeconds": .double(Double(view.lateness) / 1000),
                        "ttlSeconds": view.timeToLive.map { .double(Double($0) / 1000) } ?? .null,
                        "features": .array(
                            view.aggregates.map { feature in
                                .object([
                                    "name": .string(feature.name), "function": .string(feature.function.rawValue),
                                    "windowSeconds": feature.span.map { .double(Double($0) / 1000) } ?? .null,
                                ])
                            }),
                        "services": texts(
                            services.filter { $0.features.contains { $0.view == view.name } }.map(\.name)),
                    ])
                }),
            "derived": .array(
                catalog.derived.values.sorted { $0.name < $1.name }.filter {
                    isFound([$0.name, $0.description, $0.owner] + $0.tags + $0.features.map(\.name))
                }.map { view in
                    .object([
                        "name": .string(view.name), "version": .int(catalog.version(of: view)),
                        "description": .string(view.description), "owner": .string(view.owner),
                        "tags": texts(view.tags), "request": texts(view.requests),
                        "features": texts(view.features.map(\.name)),
                        "of": texts(view.references.map(\.text)),
                        "services": texts(
                            services.filter { $0.features.contains { $0.view == view.name } }.map(\.name)),
                    ])
                }),
            "entities": .array(
                catalog.entities.values.sorted { $0.name < $1.name }.filter {
                    isFound([$0.name, $0.joinKey, $0.description, $0.owner] + $0.tags)
                }.map { entity in
                    .object([
                        "name": .string(entity.name), "key": .string(entity.joinKey),
                        "description": .string(entity.description), "owner": .string(entity.owner),
                        "tags": texts(entity.tags),
                    ])
                }),
            "services": .array(
                services.filter {
                    isFound([$0.name, $0.description, $0.owner] + $0.tags + $0.features.map(\.text))
                }.map { service in
                    .object([
                        "name": .string(service.name), "version": .int(catalog.version(of: service)),
                        "description": .string(service.description), "owner": .string(service.owner),
                        "tags": texts(service.tags), "features": texts(service.features.map(\.text)),
                    ])
                }),
        ])
    }

    private static func texts(_ list: [String]) -> JSON { .array(list.map { .string($0) }) }

    /// `{asOf, service?, views, features: [{name, values, statuses, times}]}`; lists are in the order of the keys asked for.
    static func write(_ answer: FeatureAnswer, _ question: FeatureQuestion) -> [UInt8] {
        var writer = JSONWriter(capacity: 256 + answer.columns.count * (answer.columns.first?.values.count ?? 0) * 48)
        writer.beginObject()
        writer.key("asOf")
        if answer.asOf == .distantPast { writer.null() } else { writer.value(answer.asOf) }
        if let service = question.service {
            writer.key("service")
            writer.value("\(service)@\(answer.serviceVersion ?? 1)")
        }
        writer.key("views")
        writer.beginArray()
        for (view, version) in answer.versions { writer.value("\(view)@\(version)") }
        writer.endArray()
        writer.key("features")
        writer.beginArray()
        for column in answer.columns {
            writer.beginObject()
            writer.key("name")
            writer.value(column.reference.text)
            writer.key("values")
            FeastFormat.values(column, &writer)
            writer.key("statuses")
            writer.beginArray()
            for status in column.statuses { writer.value(status.rawValue) }
            writer.endArray()
            writer.key("times")
            writer.beginArray()
            for time in column.times {
                if let time { writer.value(Instant(milliseconds: time)) } else { writer.null() }
            }
            writer.endArray()
            writer.endObject()
        }
        writer.endArray()
        writer.endObject()
        return writer.bytes
    }
}
