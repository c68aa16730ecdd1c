package main

import (
	"math"
	"slices"
)

type rgb struct{ r, g, b float64 }

func (c rgb) mix(d rgb, t float64) rgb {
	return rgb{c.r + (d.r-c.r)*t, c.g + (d.g-c.g)*t, c.b + (d.b-c.b)*t}
}

func hex(v uint32) rgb {
	return rgb{float64(v>>16&255) / 255, float64(v>>8&255) / 255, float64(v&255) / 255}
}

type point struct{ x, y float64 }

// canvas draws at three times the size; at() averages.
const over = 3

type canvas struct{ pixels []rgb }

func newCanvas() *canvas { return &canvas{make([]rgb, width*over*height*over)} }

func (c *canvas) copy() *canvas { return &canvas{slices.Clone(c.pixels)} }

func (c *canvas) at(x, y int) rgb {
	var sum rgb
	for dy := range over {
		for dx := range over {
			p := c.pixels[(y*over+dy)*width*over+x*over+dx]
			sum.r, sum.g, sum.b = sum.r+p.r, sum.g+p.g, sum.b+p.b
		}
	}
	const n = over * over
	return rgb{sum.r / n, sum.g / n, sum.b / n}
}

// paint calls shade for the pixels of a box; it returns a colour and how much
// of it to lay on.
func (c *canvas) paint(x0, y0, x1, y1 float64, shade func(x, y float64) (rgb, float64)) {
	left, right := max(0, int(x0*over)), min(width*over, int(x1*over)+1)
	top, bottom := max(0, int(y0*over)), min(height*over, int(y1*over)+1)
	for y := top; y < bottom; y++ {
		for x := left; x < right; x++ {
			colour, alpha := shade((float64(x)+0.5)/over, (float64(y)+0.5)/over)
			if alpha > 0 {
				p := &c.pixels[y*width*over+x]
				*p = p.mix(colour, min(1, alpha))
			}
		}
	}
}

// polygon fills a convex outline, lighter towards its top by sheen.
func (c *canvas) polygon(outline []point, colour rgb, alpha, sheen float64) {
	x0, y0, x1, y1 := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, p := range outline {
		x0, x1 = min(x0, p.x), max(x1, p.x)
		y0, y1 = min(y0, p.y), max(y1, p.y)
	}
	white := rgb{1, 1, 1}
	c.paint(x0, y0, x1, y1, func(x, y float64) (rgb, float64) {
		sign := 0.0
		for i, p := range outline {
			q := outline[(i+1)%len(outline)]
			cross := (q.x-p.x)*(y-p.y) - (q.y-p.y)*(x-p.x)
			if cross*sign < 0 {
				return rgb{}, 0
			}
			if cross != 0 {
				sign = cross
			}
		}
		return colour.mix(white, sheen*(1-(y-y0)/(y1-y0+1e-9))), alpha
	})
}

// line draws a stroke with round ends and a soft rim.
func (c *canvas) line(a, b point, thick, soft float64, colour rgb, alpha float64) {
	reach := thick/2 + soft
	c.paint(min(a.x, b.x)-reach, min(a.y, b.y)-reach, max(a.x, b.x)+reach, max(a.y, b.y)+reach,
		func(x, y float64) (rgb, float64) {
			d := distance(point{x, y}, a, b) - thick/2
			return colour, alpha * (1 - smooth(d/(soft+1e-9)))
		})
}

func (c *canvas) glow(p point, radius float64, colour rgb, alpha float64) {
	c.paint(p.x-radius, p.y-radius, p.x+radius, p.y+radius, func(x, y float64) (rgb, float64) {
		d := 1 - math.Hypot(x-p.x, y-p.y)/radius
		return colour, alpha * max(0, d) * max(0, d)
	})
}

func distance(p, a, b point) float64 {
	dx, dy := b.x-a.x, b.y-a.y
	t := clamp(((p.x-a.x)*dx + (p.y-a.y)*dy) / (dx*dx + dy*dy + 1e-12))
	return math.Hypot(p.x-a.x-t*dx, p.y-a.y-t*dy)
}

func clamp(t float64) float64 { return max(0, min(1, t)) }

func smooth(t float64) float64 {
	t = clamp(t)
	return t * t * (3 - 2*t)
}

// during maps t's way from a to b to 0…1.
func during(t, a, b float64) float64 { return clamp((t - a) / (b - a)) }
