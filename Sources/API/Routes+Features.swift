import Base
import Features
import Gateway
import HTTP
import RecordFormat

/// The online store: Feast's routes and our own.
extension Routes {
    func capabilities(_ server: HTTPServer) {
        features(server)
        datasets(server)
        changes(server)
    }

    private func features(_ server: HTTPServer) {
        server.route("GET", "/v1/features") { [node] request in
            .json(FeatureCatalogFormat.write(try node.featureCatalog(), search: request.query["q"] ?? ""))
        }
        server.route("GET", "/v1/features/:view") { [node, long] request in
            let name = request.parameters["view"] ?? ""
            return .json(try await long.run { try node.viewDetail(name) })
        }
        server.route("POST", "/v1/features") { [node, long] request in
            if let unknown = request.query.keys.filter({ $0 != "asOf" }).min() {
                throw APIError("bad-request", "'?\(unknown)=' is unknown here; known is 'asOf'")
            }
            let asked = try FeastFormat.read(request.body)
            let answer: FeatureAnswer
            if let asOf = request.query["asOf"] {
                answer = try await long.run { try node.pastOnlineFeatures(asked.question, asOf: asOf) }
            } else {
                answer = try await node.onlineFeatures(asked.question)
            }
            return WebResponse(
                contentType: "application/json", body: .bytes(FeatureCatalogFormat.write(answer, asked.question)))
        }
        server.answerQuickly("POST", "/v1/features") { [node] body in
            guard let asked = try? FeastFormat.read(body), let answer = node.onlineFeaturesNow(asked.question)
            else { return nil }
            return WebResponse(
                contentType: "application/json", body: .bytes(FeatureCatalogFormat.write(answer, asked.question)))
        }
        server.answerQuickly("POST", "/get-online-features") { [node] body in
            guard let asked = try? FeastFormat.read(body), let answer = node.onlineFeaturesNow(asked.question),
                let written = try? FeastFormat.write(answer, to: asked)
            else { return nil }
            return WebResponse(contentType: "application/json", body: .bytes(written))
        }
        feast(server)
    }

    private func feast(_ server: HTTPServer) {
        func route(_ path: String, _ body: @escaping @Sendable (WebRequest) async throws -> WebResponse) {
            server.route("POST", path) { request in
                do {
                    return try await body(request)
                } catch let error as any DescribedError {
                    let (body, status) = FeastFormat.failure(error)
                    return WebResponse(status: status, contentType: "application/json", body: .bytes(body))
                }
            }
        }
        route("/get-online-features") { [node] request in
            let asked = try FeastFormat.read(request.body)
            let answer = try await node.onlineFeatures(asked.question)
            return WebResponse(
                contentType: "application/json", body: .bytes(try FeastFormat.write(answer, to: asked)))
        }
        route("/push") { [self] request in
            let body = try object(request)
            try await push(body["push_source_name"]?.string, "push_source_name", body["df"])
            return WebResponse(contentType: "application/json", body: .bytes([]))
        }
        route("/write-to-online-store") { [self] request in
            let body = try object(request)
            try await push(body["feature_view_name"]?.string, "feature_view_name", body["df"])
            return WebResponse(contentType: "application/json", body: .bytes([UInt8]("null".utf8)))
        }
        // The fold keeps every view up to date by itself: there is nothing left to do but to know the names.
        for path in ["/materialize", "/materialize-incremental"] {
            route(path) { [self] request in
                let body = try object(request)
                guard path == "/materialize" || body["end_ts"]?.string != nil else {
                    throw APIError("bad-request", "'end_ts' is missing")
                }
                let catalog = try node.featureCatalog()
                for name in body["feature_views"]?.array ?? [] {
                    _ = try FeatureReference.read(name.string ?? "", catalog.names)
                }
                return WebResponse(contentType: "application/json", body: .bytes([UInt8]("null".utf8)))
            }
        }
        server.route("GET", "/health") { [node] _ in
            WebResponse(status: node.readiness().ready ? 200 : 503, contentType: "application/json", body: .bytes([]))
        }
    }

    /// - Throws: without the content type as well, which keeps web pages of others from writing here.
    private func object(_ request: WebRequest) throws -> JSON {
        guard request.header("content-type")?.hasPrefix("application/json") == true else {
            throw APIError("bad-request", "this is asked for with Content-Type: application/json")
        }
        do {
            let json = try JSON(parsing: request.body)
            guard json.object != nil else { throw APIError("bad-request", "the body must be an object") }
            return json
        } catch let error as BaseError {
            throw APIError("bad-json", "the body is not JSON: \(error.message)")
        }
    }

    /// Appends rows to the topic of a view, or to a topic by its own name. A row's id is worked out from its data and its
    /// time, so that a push that is sent again is not counted again.
    private func push(_ name: String?, _ member: String, _ frame: JSON?) async throws {
        guard let name else { throw APIError("bad-request", "'\(member)' is missing") }
        let catalog = try node.featureCatalog()
        let view = catalog.views[name]
        guard let topic = view?.topic ?? gateway.topic(name)?.name else {
            throw APIError("unknown-push-source", "Unable to find push source '\(name)'.")
        }
        let rows = try FeastFormat.Frame(frame).rows
        let type = gateway.topic(topic)?.defaultType ?? "row.pushed"
        let events = rows.map { row in
            let time = row.time ?? clock()
            let data = row.data.canonical
            let id = Digest.of([UInt8]("\(time.milliseconds)|".utf8) + data).hex
            let key = view.flatMap { row.data[catalog.keyName(of: $0)] }
            let text = key?.string ?? key?.text
            return (
                topic: topic,
                event: NewEvent(
                    id: "push:\(id)", source: "headrace:/push", type: type, time: time,
                    key: text.map { [UInt8]($0.utf8) }, data: data)
            )
        }
        let verdicts = try await gateway.publish(events, principal: "feast", durability: .synced)
        for (row, verdict) in verdicts.enumerated() {
            if case .refused(let error) = verdict {
                throw APIError(error.code, "row \(row): \(error.message)", fault: error.fault)
            }
        }
    }
}
