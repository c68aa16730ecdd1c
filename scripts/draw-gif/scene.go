package main

import (
	"math"
	"sort"
)

// The world: x to the lower right, y to the lower left, z up; one unit is one
// container.
type spot struct{ x, y, z float64 }

const unit = 23.0

func project(p spot) point {
	return point{
		x: width/2 + (p.x-p.y)*unit*0.866,
		y: 208 + (p.x+p.y)*unit*0.5 - p.z*unit*0.95,
	}
}

var (
	layerColours = []rgb{hex(0x2dd4bf), hex(0x38bdf8), hex(0x818cf8), hex(0xf472b6)}
	ink          = hex(0x0b1026)
	dusk         = hex(0x1d2452)
	pale         = hex(0xe8ecff)
)

const (
	side   = 3 // containers along a layer's edge
	layers = 4
	count  = side * side * layers
)

// Three nodes, each 3 × 2 containers, two high.
var nodes = []spot{{-5.1, 1.7, 0}, {1.7, -5.1, 0}, {2.5, 2.5, 0}}

// Where container i stands in the stack, and where in the cluster.
func stackSpot(i int, gap float64) spot {
	layer, rest := i/(side*side), i%(side*side)
	step := 1 + gap
	return spot{(float64(rest%side) - 1) * step, (float64(rest/side) - 1) * step, float64(layer) * (1 + gap*1.2)}
}

func clusterSpot(i int) spot {
	node, place := nodes[i%len(nodes)], i/len(nodes) // each node gets some of every layer
	x, y, z := place%3, place/3%2, place/6
	return spot{node.x + float64(x-1)*1.12, node.y + (float64(y)-0.5)*1.12, node.z + 0.25 + float64(z)*1.06}
}

type cube struct {
	at     spot
	colour rgb
	alpha  float64
	size   float64
}

// scene draws the moment t of the loop, 0 ≤ t < 1.
func scene(t float64) *canvas {
	c := empty.copy()

	ground := during(t, 0.42, 0.54) * (1 - smooth(during(t, 0.90, 0.985)))
	drawGround(c, t, ground)

	cubes := make([]cube, 0, count)
	for i := range count {
		cubes = append(cubes, container(i, t))
	}
	for _, cube := range cubes {
		shadow(c, cube)
	}
	sort.SliceStable(cubes, func(i, j int) bool {
		a, b := cubes[i].at, cubes[j].at
		return a.x+a.y+a.z*1.01 < b.x+b.y+b.z*1.01
	})
	for _, cube := range cubes {
		draw(c, cube)
	}
	word(c, t)
	return c
}

// container follows one container: down with its layer, apart, over to its
// node, and at the end up and away.
func container(i int, t float64) cube {
	layer := i / (side * side)
	result := cube{colour: layerColours[layer], size: 1}

	drop := during(t, 0.01+0.07*float64(layer), 0.13+0.07*float64(layer))
	gap := 0.34 * smooth(during(t, 0.37, 0.45))
	from := stackSpot(i, gap)
	fall := 1 - drop
	from.z += 7*fall*fall*fall + 0.28*math.Abs(math.Sin(drop*math.Pi*2))*fall
	result.alpha = smooth(drop * 3)

	wait := 0.10 * float64((i*17)%count) / count
	move := smooth(during(t, 0.44+wait, 0.57+wait))
	to := clusterSpot(i)
	result.at = spot{
		from.x + (to.x-from.x)*move,
		from.y + (to.y-from.y)*move,
		from.z + (to.z-from.z)*move + 2.2*math.Sin(math.Pi*move),
	}
	result.at.z += 0.05 * math.Sin(2*math.Pi*(4*t)+float64(i%len(nodes))*2.1) * smooth(during(t, 0.66, 0.7)) * (1 - during(t, 0.88, 0.9))

	leave := during(t, 0.89+0.05*float64((i*7)%count)/count, 0.99)
	result.at.z += 3.5 * leave * leave
	result.alpha *= 1 - smooth(leave*1.05)
	result.size = 1 - 0.35*leave
	return result
}

// empty is the ground that every moment has.
var empty = func() *canvas {
	c := newCanvas()
	background(c)
	return c
}()

func background(c *canvas) {
	c.paint(0, 0, width, height, func(x, y float64) (rgb, float64) {
		d := math.Hypot((x-width/2)/430, (y-190)/260)
		return dusk.mix(ink, smooth(d)), 1
	})
	for i := -9; i <= 9; i++ {
		v := float64(i)
		grid := hex(0x4657b8)
		c.line(project(spot{v, -9, 0}), project(spot{v, 9, 0}), 0.6, 0.5, grid, 0.16)
		c.line(project(spot{-9, v, 0}), project(spot{9, v, 0}), 0.6, 0.5, grid, 0.16)
	}
}

func drawGround(c *canvas, t, strength float64) {
	if strength <= 0 {
		return
	}
	links := smooth(during(t, 0.60, 0.68)) * strength
	for i, a := range nodes {
		b := nodes[(i+1)%len(nodes)]
		p, q := project(a), project(b)
		c.line(p, q, 5, 7, hex(0x38bdf8), 0.20*links)
		c.line(p, q, 1.6, 0.8, hex(0x9be7ff), 0.75*links)
		for k := range 3 {
			s := math.Mod(t*5+float64(k)/3+float64(i)*0.13, 1)
			at := point{p.x + (q.x-p.x)*s, p.y + (q.y-p.y)*s}
			c.glow(at, 9, hex(0xd7fbff), links*math.Sin(math.Pi*s))
		}
	}
	for i, node := range nodes {
		grow := smooth(during(t, 0.42+0.03*float64(i), 0.52+0.03*float64(i)))
		pad(c, node, grow, strength)
	}
}

// pad is a node: a flat slab with a bright rim.
func pad(c *canvas, node spot, grow, alpha float64) {
	w, d := 2.05*grow, 1.5*grow
	corner := func(x, y, z float64) point { return project(spot{node.x + x, node.y + y, z}) }
	top := []point{corner(-w, -d, 0.2), corner(w, -d, 0.2), corner(w, d, 0.2), corner(-w, d, 0.2)}
	c.polygon([]point{corner(-w, d, 0.2), corner(w, d, 0.2), corner(w, d, -0.15), corner(-w, d, -0.15)}, hex(0x27306b), alpha, 0)
	c.polygon([]point{corner(w, -d, 0.2), corner(w, d, 0.2), corner(w, d, -0.15), corner(w, -d, -0.15)}, hex(0x1c2352), alpha, 0)
	c.polygon(top, hex(0x3a4694), alpha, 0.08)
	for i := range top {
		c.line(top[i], top[(i+1)%len(top)], 0.9, 0.7, hex(0x93a4ff), 0.8*alpha)
	}
}

func shadow(c *canvas, b cube) {
	faint := b.alpha * 0.30 * (1 - clamp(b.at.z/7))
	if faint <= 0 {
		return
	}
	h := b.size * 0.5
	corner := func(x, y float64) point { return project(spot{b.at.x + x, b.at.y + y, 0}) }
	c.polygon([]point{corner(-h, -h), corner(h, -h), corner(h, h), corner(-h, h)}, hex(0x050816), faint, 0)
}

func draw(c *canvas, b cube) {
	if b.alpha <= 0.004 {
		return
	}
	h := b.size * 0.5
	corner := func(x, y, z float64) point { return project(spot{b.at.x + x*h, b.at.y + y*h, b.at.z + (z+1)*h}) }
	top := []point{corner(-1, -1, 1), corner(1, -1, 1), corner(1, 1, 1), corner(-1, 1, 1)}
	left := []point{corner(-1, 1, 1), corner(1, 1, 1), corner(1, 1, -1), corner(-1, 1, -1)}
	right := []point{corner(1, -1, 1), corner(1, 1, 1), corner(1, 1, -1), corner(1, -1, -1)}
	white := rgb{1, 1, 1}
	c.polygon(left, b.colour.mix(ink, 0.30), 0.86*b.alpha, 0.10)
	c.polygon(right, b.colour.mix(ink, 0.52), 0.86*b.alpha, 0.10)
	c.polygon(top, b.colour.mix(white, 0.22), 0.84*b.alpha, 0.25)
	// Ribs, as on a shipping container.
	for i := -1; i <= 1; i++ {
		v := float64(i) * 0.5
		c.line(corner(v, 1, 0.8), corner(v, 1, -0.8), 0.7, 0.5, ink, 0.28*b.alpha)
		c.line(corner(1, v, 0.8), corner(1, v, -0.8), 0.7, 0.5, ink, 0.28*b.alpha)
	}
	rim := b.colour.mix(white, 0.6)
	for _, edge := range [][2]point{{top[0], top[1]}, {top[1], top[2]}, {top[2], top[3]}, {top[3], top[0]}, {left[1], left[2]}} {
		c.line(edge[0], edge[1], 0.5, 0.7, rim, 0.75*b.alpha)
	}
}

// Strokes of the letters in a box one wide and two high, baseline at y = 0,
// x-height 1.
var letters = map[rune][][]point{
	'd': {ring(0.5, 0.5, 0.5, 0, 360), {{1, 0}, {1, 1.75}}},
	'e': {ring(0.5, 0.5, 0.5, 0, 318), {{0, 0.5}, {1, 0.5}}},
	'v': {{{0, 1}, {0.5, 0}, {1, 1}}},
	's': {append(ring(0.5, 0.75, 0.25, 20, 270), ring(0.5, 0.25, 0.25, 90, -160)...)},
	't': {append([]point{{0.3, 1.5}, {0.3, 0.3}}, ring(0.6, 0.3, 0.3, 180, 290)...), {{0, 1}, {0.75, 1}}},
	'a': {ring(0.5, 0.5, 0.5, 0, 360), {{1, 0}, {1, 1}}},
	'c': {ring(0.5, 0.5, 0.5, 45, 315)},
	'k': {{{0, 0}, {0, 1.75}}, {{0.9, 1}, {0, 0.42}}, {{0.3, 0.62}, {0.95, 0}}},
}

func ring(x, y, r, from, to float64) []point {
	var out []point
	for i := 0; i <= 20; i++ {
		a := (from + (to-from)*float64(i)/20) * math.Pi / 180
		out = append(out, point{x + r*math.Cos(a), y + r*math.Sin(a)})
	}
	return out
}

func word(c *canvas, t float64) {
	const text, scale, step = "devstack", 15.0, 25.0
	left, base := width/2-step*float64(len(text))/2+5, 347.0
	for i, letter := range text {
		shown := smooth(during(t, 0.60+0.012*float64(i), 0.68+0.012*float64(i))) * (1 - smooth(during(t, 0.90, 0.97)))
		if shown <= 0 {
			continue
		}
		up := 8 * (1 - shown)
		place := func(p point) point { return point{left + step*float64(i) + p.x*scale, base + up - p.y*scale} }
		colour := pale.mix(layerColours[i*len(layerColours)/len(text)], 0.35)
		for _, stroke := range letters[letter] {
			for k := 1; k < len(stroke); k++ {
				c.line(place(stroke[k-1]), place(stroke[k]), 2.6, 0.6, colour, shown)
			}
		}
	}
}
