import Base
import Foundation
import Testing

/// Feast's own SDK with a remote online store, and plain HTTP callers, against a started node.
@Suite struct FeastTests {
    private static let workspace = """
        kind: Topic
        name: profiles
        schema:
          type: object
          required: [driver_id]
          properties:
            driver_id: {type: integer}
            rating: {type: [number, "null"]}
            car: {type: [string, "null"]}
        ---
        kind: Topic
        name: rides
        defaultType: ride.ended
        schema: {type: object, required: [driver_id, fare]}
        ---
        kind: Entity
        name: driver
        joinKey: driver_id
        ---
        kind: FeatureView
        name: driver_profile
        topic: profiles
        entity: driver
        key: data.driver_id
        ttl: 2h
        owner: mobility
        tags: [drivers]
        latest: {rating: data.rating, car: data.car}
        ---
        kind: FeatureView
        name: driver_rides
        topic: rides
        entity: driver
        key: data.driver_id
        description: what a driver has earned
        aggregates:
          - {name: rides_1h, function: count, window: 1h}
          - {name: fare_mean_1h, function: mean, of: data.fare, window: 1h}
        ---
        kind: FeatureService
        name: driver_activity
        features: ["driver_profile:rating", driver_rides]
        """

    @Test(.enabled(if: python != nil, "./test makes the Python environment")) func itsClientReadsAndWrites()
        async throws
    {
        let scratch = try ScratchDirectory()
        let folder = scratch.path + "/workspace"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data(Self.workspace.utf8).write(to: URL(filePath: folder + "/w.yaml"))
        let node = try FlightsNode(data: scratch.path + "/data", connector: nil, exit: false, workspace: folder)
        defer { node.stop() }
        let address = try node.address()
        let result = try run(
            python!, [projectDirectory + "/Tests/Contract/Python/use_feast.py", address, scratch.path])
        #expect(result.status == 0 && result.output.contains("all is well"), "\(result.output) \(result.errors)")
        // Our own shape, and the catalog.
        let body = #"{"feature_service":"driver_activity","entities":{"driver_id":[1001,5]}}"#
        let own = try await http("POST", address + "/v1/features", body: [UInt8](body.utf8)).json
        #expect(
            own["service"] == "driver_activity@1" && own["views"]?.text == #"["driver_profile@1","driver_rides@1"]"#)
        let first = own["features"]?.array?.first
        #expect(first?["name"] == "driver_profile:rating" && first?["statuses"]?.text == #"["PRESENT","NOT_FOUND"]"#)
        let asOf = try await http("POST", address + "/v1/features?asOf=2001-01-01T00:00:00Z", body: [UInt8](body.utf8))
            .json
        #expect(asOf["features"]?.array?.first?["statuses"]?.text == #"["NOT_FOUND","NOT_FOUND"]"#, "\(asOf)")
        let catalog = try await http("GET", address + "/v1/features?q=earned").json
        #expect(catalog["views"]?.array?.compactMap { $0["name"]?.string } == ["driver_rides"], "\(catalog)")
        #expect(catalog["views"]?.array?.first?["key"] == "driver_id" && catalog["services"]?.array?.isEmpty == true)
    }
}
