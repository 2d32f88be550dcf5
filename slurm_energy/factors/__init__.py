"""What a kWh and a device-hour stand for: PUE, carbon intensity, prices and rated powers, each with source and date.

Importing this package reads no file. `profile` has the named sets of factors, `devices` what a GRES type means,
`cpus` and `carbon` the look-ups by processor and by grid.
"""
