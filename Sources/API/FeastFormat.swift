import Base
import Features

/// The wire format of Feast's Python feature server (feature_server.py of Feast 0.67): what its SDK with a remote online
/// store and plain HTTP callers send and expect. Answers are per feature, and inner lists are per row.
enum FeastFormat {
    /// A request for features, with how its keys are given back.
    struct Request {
        let question: FeatureQuestion
        let fullNames: Bool
        let wantsVersions: Bool
        /// By entity and row: whether a key came as text.
        let isText: [[Bool]]
    }

    static func read(_ body: [UInt8]) throws(APIError) -> Request {
        let document = JSONDocument()
        do {
            try body.withUnsafeBytes { raw in try document.parse(raw) }
        } catch {
            throw APIError("bad-json", "the body is not JSON", cause: error)
        }
        guard document.kind(0) == .object else { throw APIError("bad-request", "the body must be an object") }
        var service: String?
        var features: [String] = []
        var entities: [(name: String, keys: [String?])] = []
        var isText: [[Bool]] = []
        var fullNames = false
        var wantsVersions = false
        var mistake: String?
        document.forEachMember(0) { key, node in
            switch document.string(key) ?? "" {
            case "feature_service": service = document.string(node)
            case "full_feature_names": fullNames = document.bool(node) == true
            case "include_feature_view_version_metadata": wantsVersions = document.bool(node) == true
            case "features":
                guard document.kind(node) == .array else {
                    return mistake = "'features' must be a list of VIEW:FEATURE"
                }
                document.forEachElement(node) { item in
                    guard features.count < Limits.onlineFeatures else {
                        return mistake = "\(Limits.onlineFeatures) features may be asked for at once"
                    }
                    if let text = document.string(item) {
                        features.append(text)
                    } else {
                        mistake = "'features' has no text"
                    }
                }
            case "entities":
                guard document.kind(node) == .object else {
                    return mistake = "'entities' must map names of keys to lists of keys"
                }
                document.forEachMember(node) { name, list in
                    let name = document.string(name) ?? ""
                    guard document.kind(list) == .array else { return mistake = "'entities.\(name)' must be a list" }
                    guard entities.count < Limits.onlineEntities else {
                        return mistake = "\(Limits.onlineEntities) kinds of keys may be given at once"
                    }
                    var keys: [String?] = []
                    var texts: [Bool] = []
                    document.forEachElement(list) { item in
                        guard keys.count < Limits.onlineRows else {
                            return mistake = "\(Limits.onlineRows) rows may be asked for at once"
                        }
                        texts.append(document.kind(item) == .string)
                        keys.append(CELValue.label(document, item))
                    }
                    entities.append((name, keys))
                    isText.append(texts)
                }
            default: break
            }
        }
        if let mistake { throw APIError("bad-request", mistake) }
        return Request(
            question: FeatureQuestion(service: service, features: features, entities: entities, isText: isText),
            fullNames: fullNames,
            wantsVersions: wantsVersions, isText: isText)
    }

    /// Time of what was never seen, as Feast writes it.
    private static let never = Instant(milliseconds: 0)

    static func write(_ answer: FeatureAnswer, to request: Request) throws(APIError) -> [UInt8] {
        var names: [String] = request.question.entities.map(\.name)
        for column in answer.columns {
            let reference = column.reference
            let name = request.fullNames ? "\(reference.view)__\(reference.feature)" : reference.feature
            guard !names.contains(name) else {
                throw APIError(
                    "name-collision",
                    "two columns would be called '\(name)'; ask with full_feature_names, which puts the view before it")
            }
            names.append(name)
        }
        var writer = JSONWriter(capacity: 256 + answer.columns.count * (answer.columns.first?.values.count ?? 0) * 48)
        writer.beginObject()
        writer.key("metadata")
        writer.beginObject()
        writer.key("feature_names")
        writer.beginArray()
        for name in names { writer.value(name) }
        writer.endArray()
        if request.wantsVersions {
            writer.key("feature_view_metadata")
            writer.beginArray()
            for (view, version) in answer.versions {
                writer.beginObject()
                writer.key("name")
                writer.value(view)
                writer.key("version")
                writer.value(version)
                writer.endObject()
            }
            writer.endArray()
        }
        writer.endObject()
        writer.key("results")
        writer.beginArray()
        for (entity, texts) in zip(request.question.entities, request.isText) { keys(entity.keys, texts, &writer) }
        for column in answer.columns { write(column, &writer) }
        writer.endArray()
        writer.endObject()
        return writer.bytes
    }

    private static func keys(_ keys: [String?], _ isText: [Bool], _ writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("values")
        writer.beginArray()
        for (key, isText) in zip(keys, isText) {
            if let key { isText ? writer.value(key) : writer.raw(key.utf8) } else { writer.null() }
        }
        writer.endArray()
        writer.key("statuses")
        writer.beginArray()
        for _ in keys { writer.value(FeatureStatus.present.rawValue) }
        writer.endArray()
        writer.key("event_timestamps")
        writer.beginArray()
        for _ in keys { writer.value(never) }
        writer.endArray()
        writer.endObject()
    }

    private static func write(_ column: FeatureColumn, _ writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("values")
        values(column, &writer)
        writer.key("statuses")
        writer.beginArray()
        for status in column.statuses { writer.value(status.rawValue) }
        writer.endArray()
        writer.key("event_timestamps")
        writer.beginArray()
        for time in column.times { writer.value(time.map { Instant(milliseconds: $0) } ?? never) }
        writer.endArray()
        writer.endObject()
    }

    /// Numbers, texts where they stand, null where there is nothing.
    static func values(_ column: FeatureColumn, _ writer: inout JSONWriter) {
        writer.beginArray()
        for (row, value) in column.values.enumerated() {
            if row < column.texts.count, let text = column.texts[row] {
                writer.value(text)
            } else {
                writer.value(value)
            }
        }
        writer.endArray()
    }

    /// Feast answers a JSON string that encodes module, class and message; its SDK raises that class again.
    static func failure(_ error: any DescribedError) -> (body: [UInt8], status: Int) {
        let (name, status): (String, Int) =
            switch error.code {
            case "unknown-view", "unknown-feature": ("FeatureViewNotFoundException", 404)
            case "unknown-service": ("FeatureServiceNotFoundException", 404)
            case "missing-entity": ("EntityNotFoundException", 404)
            case "unknown-push-source": ("PushSourceNotFoundException", 422)
            case "name-collision": ("FeatureNameCollisionError", 422)
            case "bad-json", "bad-request", "schema-violation": ("", 422)
            default: ("FeastError", error.fault == .caller ? 422 : 500)
            }
        guard !name.isEmpty else {
            // A body that does not validate is FastAPI's own answer.
            let detail = JSON.object([
                "detail": .array([
                    .object(["loc": .array(["body"]), "msg": .string(error.message), "type": .string(error.code)])
                ])
            ])
            return (detail.canonical, status)
        }
        let inner = JSON.object([
            "module": "feast.errors", "class": .string(name), "message": .string(error.message),
        ])
        return (JSON.string(inner.text).canonical, status)
    }

    /// Rows of a data frame as events of a topic: columns but the times become the data.
    struct Frame {
        var rows: [(data: JSON, time: Instant?)] = []

        /// - Parameter frame: `{column: [values]}`.
        init(_ frame: JSON?) throws(APIError) {
            guard let columns = frame?.object, !columns.isEmpty else {
                throw APIError("bad-request", "'df' must map columns to lists of values")
            }
            var count: Int?
            var lists: [(name: String, values: [JSON])] = []
            for (name, value) in JSON.sorted(columns) {
                guard let values = value.array, count == nil || count == values.count else {
                    throw APIError("bad-request", "'df.\(name)' must be a list as long as the others")
                }
                count = values.count
                lists.append((name, values))
            }
            guard let count, count <= Limits.batchEvents else {
                throw APIError("bad-request", "a data frame has up to \(Limits.batchEvents) rows")
            }
            for row in 0..<count {
                var data: [String: JSON] = [:]
                var time: Instant?
                for (name, values) in lists {
                    switch name {
                    case "created": continue
                    case "event_timestamp": time = try Frame.time(values[row], row)
                    default: data[name] = values[row]
                    }
                }
                rows.append((.object(data), time))
            }
        }

        /// RFC 3339; without a zone it is UTC, as pandas and `isoformat` write it. A number is seconds since 1970.
        static func time(_ value: JSON, _ row: Int) throws(APIError) -> Instant? {
            if value == .null { return nil }
            if let seconds = value.double, seconds.magnitude < 1e12 {
                return Instant(milliseconds: Int64((seconds * 1000).rounded(.down)))
            }
            if let text = value.string, let time = Instant(text) ?? Instant(text + "Z") { return time }
            throw APIError("bad-request", "'df.event_timestamp' has no time in row \(row)")
        }
    }
}
